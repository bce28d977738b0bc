"""The authors' own figures, replayed: deterministic, so they must come out to the cent."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reference_published import authors_arrivals, finish_times
from shared_data import shared_data
from ssjf.errors import InputError
from ssjf.experiments import draws, grid, store
from ssjf.experiments.runner import execute
from ssjf.experiments.runs import published as published_runs
from ssjf.report import claims
from ssjf.request import Requests
from ssjf.simulator.published import Quirks, duration_seconds, quirk_names, serve

ROOT = Path(__file__).resolve().parents[1]
AUTHORS = {"rate": "ssjf_replay", "cv": "ssjf_cv_replay"}
"""What their code printed, by sweep."""
REPLAYS = {sweep: grid.experiment(f"{sweep}-replay").specs() for sweep in AUTHORS}
METRICS = ["jct_mean", "jct_p99", "throughput_25"]
ORACLE = {"none": 43.68, "dynamic": 58.23, "continuous": 42.97}
"""Percent by which the mean JCT falls under SJF, measured from the authors' code."""
ROWS = 85_482
"""Of the authors' published predictions."""


@pytest.fixture(autouse=True)
def committed(monkeypatch):
    """What the repository holds, wherever the tests are started."""
    monkeypatch.setenv("SSJF_ROOT", str(ROOT))
    for name in ("SSJF_RESULTS", "SSJF_RAW", "SSJF_WORKLOADS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def data(monkeypatch):
    folder = shared_data("ssjf-lmsys", "azure-conv-2023", "azure-code-2023")
    monkeypatch.setenv("SSJF_DATA", str(folder))


@pytest.fixture(scope="module")
def replayed():
    """The replays simulated anew from the committed draws: mode and series beside the rows."""
    return {sweep: pd.concat([execute(s).assign(mode=s.mode, series=s.series)
                              for s in specs], ignore_index=True)
            for sweep, specs in REPLAYS.items()}  # fmt: skip


def figures(frame):
    """Mean over all runs and plotted rates, as the authors plot them."""
    means = claims.per_run(frame).groupby(["mode", "series"])[METRICS].mean()
    return means.sort_index()


@pytest.mark.parametrize("sweep", AUTHORS)
def test_twelve_figures_are_those_of_the_authors_code(replayed, sweep):
    found = figures(replayed[sweep])
    authors = pd.read_csv(ROOT / "papers" / f"{AUTHORS[sweep]}.csv").set_index(["mode", "series"])
    authors = authors.loc[found.index]
    assert len(found) == 12
    for metric, digits in zip(METRICS, (5, 4, 5), strict=True):
        # Half a unit of the last digit printed.
        off = (found[metric] - authors[metric]).abs()
        assert off.max() < 0.51 * 10.0**-digits, off[off == off.max()]


@pytest.mark.parametrize("mode", ORACLE)
def test_the_oracles_reductions_are_the_papers(replayed, mode):
    jct = figures(replayed["rate"])["jct_mean"][mode]
    assert 100 * (1 - jct["sjf"] / jct["fcfs"]) == pytest.approx(ORACLE[mode], abs=0.005)


@pytest.mark.parametrize("sweep", AUTHORS)
def test_the_committed_runs_are_the_replay(replayed, sweep):
    stored = grid.rows(f"{sweep}-replay")
    for spec in REPLAYS[sweep]:
        both = [f[(f["mode"] == spec.mode) & (f["series"] == spec.series)]
                for f in (stored, replayed[sweep])]  # fmt: skip
        before, after = (f.reset_index(drop=True) for f in both)
        pd.testing.assert_frame_equal(
            before[after.columns], after, rtol=1e-9, atol=1e-9, check_dtype=False
        )


@pytest.fixture(scope="module")
def arrivals():
    """When the authors' jobs come, by (sweep, x, run), drawn without the package."""
    return {tuple(key): arrived for *key, arrived in authors_arrivals(ROWS)}


@pytest.mark.parametrize("sweep", AUTHORS)
@pytest.mark.parametrize("mode", ORACLE)
def test_every_job_finishes_as_in_a_plain_reference(replayed, arrivals, sweep, mode):
    """Jobs arrive and are served by loops that share nothing with the package, every policy."""
    jobs = draws.draw(REPLAYS[sweep][0].workload.draw_options())
    key = {f"ssjf-{name}": duration_seconds(jobs[name]) for name in ("cls3", "cls5")}
    seconds = duration_seconds(jobs["output_tokens"])
    ours = replayed[sweep][replayed[sweep]["mode"] == mode]
    for series, rows in ours.groupby("series"):
        assert len(rows) == len(jobs) == 5 * 20 * 50
        for (x, run), places in jobs.groupby(["x", "run"]).indices.items():
            arrived, one = arrivals[sweep, x, run], rows.iloc[places]
            said = key[series][places].tolist() if series in key else None
            policy = series.partition("-")[0]
            expected = finish_times(arrived, seconds[places].tolist(), policy, mode, 2, said)
            np.testing.assert_allclose(one["arrived_at"], arrived, rtol=1e-12)
            np.testing.assert_allclose(one["finished_at"], expected, rtol=0, atol=1e-9)


STORED = set(draws.KINDS) - set(draws.LIVE)


def drawn_from(spec):
    """The options of the draw that a run is made from."""
    pool = getattr(spec.workload, "pool", None)
    return (spec.workload if pool is None else pool).as_json()


def drawn_by():
    """One draw of each kind that comes from data."""
    found = {}
    for each in grid.experiments().values():
        for spec in each.specs(seeds=1):
            workload = drawn_from(spec)
            if workload.get("draw") in STORED:
                found[workload["draw"], workload.get("trace")] = workload
    return found


DRAWN = drawn_by()


@pytest.mark.parametrize("kind", DRAWN, ids=str)
def test_a_committed_draw_is_what_the_data_gives(kind, data):
    options = {k: v for k, v in DRAWN[kind].items() if k not in ("scales", "label", "seeds")}
    if "seeds" in DRAWN[kind]:
        options["seed"] = DRAWN[kind]["seeds"][0]
    path = draws.draw_path(options)
    assert path.is_file(), f"{kind} is not committed"
    committed, made = pd.read_parquet(path), draws.make(options)
    if kind[0] == "proxy-test":  # of the proxy that was shipped when the runs were made
        committed, made = (each.drop(columns="predicted_tokens") for each in (committed, made))
    pd.testing.assert_frame_equal(committed, made)


@pytest.mark.parametrize("sweep", AUTHORS)
def test_the_replays_draw_is_what_the_data_gives(data, sweep):
    options = {k: v for k, v in REPLAYS[sweep][0].workload.as_json().items() if k != "seeds"}
    options["seed"] = 42
    assert options["keep"] == {"rate": [1, 3, 5, 7, 9], "cv": [1, 2, 3, 4, 5]}[sweep]
    pd.testing.assert_frame_equal(draws.draw(options), draws.make(options))


def test_every_draw_of_every_run_is_committed():
    """Nothing that a stored run needs must be fetched to do it again."""
    for each in grid.experiments().values():
        for spec in each.specs():
            workload = drawn_from(spec)
            rest = {k: v for k, v in workload.items() if k not in ("scales", "label", "seeds")}
            seeds = [{"seed": seed} for seed in workload.get("seeds", [])] or [{}]
            for seed in seeds:
                if workload.get("draw") in STORED:
                    assert draws.draw_path(rest | seed).is_file(), each.name


def test_a_draw_holds_no_text():
    for path in (ROOT / "results" / "workloads").glob("*.parquet"):
        table = pd.read_parquet(path)
        if "prompt_hash" in table:  # 16 hex digits tell nothing of the prompt
            assert table.pop("prompt_hash").str.fullmatch("[0-9a-f]{16}").all(), path
        assert set(table.dtypes.map(lambda dtype: dtype.kind)) <= {"i", "f"}, path


@pytest.mark.parametrize("name", quirk_names())
def test_each_quirk_can_be_switched_off_alone(name):
    off = Quirks().without([name])
    assert [other for other in quirk_names() if not getattr(off, other)] == [name]


def ablated(name):
    """Mean JCTs with one quirk off less those with all on, by experiment, run and policy."""
    for experiment in ("ablation-rate", "ablation-cv", "ablation-azure"):
        specs = grid.experiment(experiment).specs()
        published = {(s.mode, s.series): s for s in specs if s.quirks_off == []}
        for spec in specs:
            if spec.quirks_off == [name]:
                both = [store.load(s) for s in (spec, published[spec.mode, spec.series])]
                yield experiment, spec.mode, spec.series, both[0], both[1]


ACTING = [name for name in quirk_names() if name != "quarter_throughput"]


@pytest.mark.parametrize("name", ACTING)
def test_each_quirk_that_serves_or_arrives_changes_something(name):
    assert any((off.jct_mean != on.jct_mean).any() for *_, off, on in ablated(name))


def test_quirks_of_one_mode_leave_the_others_alone():
    for name, modes in (
        ("fcfs_waits_to_fill", {"dynamic", "continuous"}),
        ("free_preemption", {"continuous"}),
        ("joins_on_completion_only", {"continuous"}),
    ):
        moved = {
            mode for _, mode, _, off, on in ablated(name) if (off.jct_mean != on.jct_mean).any()
        }
        assert moved <= modes, name


def test_only_the_shortest_first_policies_lose_a_job_and_only_by_the_quirk():
    lost = {True: set(), False: set()}
    for _, _, series, off, on in ablated("drops_last_job"):
        lost[True] |= {series} if on.lost.any() else set()
        lost[False] |= {series} if off.lost.any() else set()
    assert lost == {True: {"sjf", "ssjf-cls5"}, False: set()}


NO_QUIRKS = Quirks().without(quirk_names())
SMALL_GAPS = np.array([3.0, 1e-20, 900.0, 1e-30, 2.0])


@pytest.mark.parametrize("quirks", [Quirks(), NO_QUIRKS], ids=["all on", "all off"])
def test_a_gap_that_drowns_in_its_sum_still_makes_a_job_come_later(quirks):
    arrived = published_runs._arrivals("cv-sweep", SMALL_GAPS, quirks, [])
    assert (np.diff(arrived) > 0).all()
    gaps = np.sort(SMALL_GAPS) if quirks.sorted_gaps else SMALL_GAPS
    np.testing.assert_allclose(arrived, np.cumsum(gaps), rtol=1e-15)


def test_jobs_of_a_stored_cv_sweep_never_come_at_one_instant():
    """They are drawn from a continuous distribution; SJF reorders those that come together."""
    workload = grid.experiment("cv-sweep").specs(seeds=2)[0].workload
    for quirks in (Quirks(), NO_QUIRKS):
        for *_, requests in published_runs._small_runs(workload, quirks):
            assert (np.diff(requests.arrived_at) > 0).all()


@pytest.mark.parametrize("quirks", [Quirks(), Quirks().without(["drifting_clock"])])
def test_who_comes_a_moment_earlier_is_served_first_by_either_clock(quirks):
    requests = Requests([1e-25, 1e-20, 7.0], [1, 1, 1], [300, 10, 20])
    done = serve(requests, "sjf", "none", quirks=quirks)
    assert done.finished_at[:2] == pytest.approx([6.1, 6.4])


def test_an_unknown_quirk_lists_the_known_ones():
    with pytest.raises(InputError, match="unknown quirk 'sorted'; known: ") as error:
        Quirks().without(["sorted_gaps", "sorted"])
    assert all(name in str(error.value) for name in quirk_names())


def test_the_authors_throughput_is_not_that_of_the_makespan(replayed):
    """Without batching the order of service cannot change how long all the work takes."""
    rows = replayed["rate"]
    runs = claims.per_run(rows[rows["mode"] == "none"])
    means = runs.groupby("series")[["throughput_25", "completed_per_second"]].mean()
    factor = means.loc["sjf"] / means.loc["fcfs"]
    assert factor["throughput_25"] > 4
    assert np.abs(factor["completed_per_second"] - 1) < 0.01
