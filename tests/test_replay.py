"""The authors' own figures, replayed: deterministic, so they must come out to the cent."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ssjf.errors import InputError
from ssjf.experiments import draws, grid, store
from ssjf.experiments.execute import execute
from ssjf.report import measures
from ssjf.simulator.published import Quirks, quirk_names
from ssjf.workload import datasets

ROOT = Path(__file__).resolve().parents[1]
REPLAY = grid.experiment("rate-replay").specs()
METRICS = ["jct_mean", "jct_p99", "throughput_25"]
ORACLE = {"none": 43.68, "dynamic": 58.23, "continuous": 42.97}
"""Percent by which the mean JCT falls under SJF, measured from the authors' code."""


@pytest.fixture(autouse=True)
def committed(monkeypatch):
    """What the repository holds, wherever the tests are started."""
    monkeypatch.setenv("SSJF_ROOT", str(ROOT))
    for name in ("SSJF_RESULTS", "SSJF_RAW", "SSJF_WORKLOADS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def data(monkeypatch):
    """$SSJF_DATA, or the data folder shared beside the checkout."""
    beside = ROOT.parent / "shared" / "data"
    folder = Path(os.environ.get("SSJF_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"needs the published data sets: SSJF_DATA is unset and {beside} is not there")
    monkeypatch.setenv("SSJF_DATA", str(folder))
    try:
        for name in ("ssjf-lmsys", "azure-conv-2023", "azure-code-2023"):
            datasets.find(name)
    except InputError as error:
        pytest.skip(f"needs the published data sets: {error}")


@pytest.fixture(scope="module")
def replayed():
    """The replay simulated anew from the committed draw: run, mode and series beside the rows."""
    parts = [execute(s).assign(mode=s["mode"], series=s["series"]) for s in REPLAY]
    return pd.concat(parts, ignore_index=True)


def figures(frame):
    """Mean over all runs and plotted rates, as the authors plot them."""
    means = measures.per_run(frame).groupby(["mode", "series"])[METRICS].mean()
    return means.sort_index()


def test_twelve_figures_are_those_of_the_authors_code(replayed):
    found = figures(replayed)
    authors = pd.read_csv(ROOT / "papers" / "ssjf_replay.csv").set_index(["mode", "series"])
    authors = authors.loc[found.index]
    assert len(found) == 12
    for metric, digits in zip(METRICS, (5, 4, 5), strict=True):
        # Half a unit of the last digit printed.
        off = (found[metric] - authors[metric]).abs()
        assert off.max() < 0.51 * 10.0**-digits, off[off == off.max()]


@pytest.mark.parametrize("mode", ORACLE)
def test_the_oracles_reductions_are_the_papers(replayed, mode):
    jct = figures(replayed)["jct_mean"][mode]
    assert 100 * (1 - jct["sjf"] / jct["fcfs"]) == pytest.approx(ORACLE[mode], abs=0.005)


def test_the_committed_runs_are_the_replay(replayed):
    stored = grid.rows("rate-replay")
    for spec in REPLAY:
        keep = [(f["mode"] == spec["mode"]) & (f["series"] == spec["series"])
                for f in (stored, replayed)]  # fmt: skip
        before, after = (f[k].reset_index(drop=True) for f, k in zip((stored, replayed), keep,
                                                                     strict=True))  # fmt: skip
        pd.testing.assert_frame_equal(
            before[after.columns], after, rtol=1e-9, atol=1e-9, check_dtype=False
        )


STORED = set(draws.KINDS) - set(draws.LIVE)


def drawn_by():
    """One draw of each kind that comes from data."""
    found = {}
    for each in grid.experiments().values():
        for spec in each.specs(seeds=1):
            workload = spec["workload"].get("pool", spec["workload"])
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
    pd.testing.assert_frame_equal(pd.read_parquet(path), draws.make(options))


def test_the_replays_draw_is_what_the_data_gives(data):
    options = {k: v for k, v in REPLAY[0]["workload"].items() if k != "seeds"} | {"seed": 42}
    assert options["keep"] == [1, 3, 5, 7, 9] and options["rates"] == [*range(1, 11)]
    pd.testing.assert_frame_equal(draws.draw(options), draws.make(options))


def test_every_draw_of_every_run_is_committed():
    """Nothing that a stored run needs must be fetched to do it again."""
    for each in grid.experiments().values():
        for spec in each.specs():
            workload = spec["workload"].get("pool", spec["workload"])
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
        published = {(s["mode"], s["series"]): s for s in specs if s["quirks_off"] == []}
        for spec in specs:
            if spec["quirks_off"] == [name]:
                both = [store.load(s) for s in (spec, published[spec["mode"], spec["series"]])]
                yield experiment, spec["mode"], spec["series"], both[0], both[1]


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


def test_an_unknown_quirk_lists_the_known_ones():
    with pytest.raises(InputError, match="unknown quirk 'sorted'; known: ") as error:
        Quirks().without(["sorted_gaps", "sorted"])
    assert all(name in str(error.value) for name in quirk_names())


def test_the_authors_throughput_is_not_that_of_the_makespan(replayed):
    """Without batching the order of service cannot change how long all the work takes."""
    runs = measures.per_run(replayed[replayed["mode"] == "none"])
    means = runs.groupby("series")[["throughput_25", "completed_per_second"]].mean()
    factor = means.loc["sjf"] / means.loc["fcfs"]
    assert factor["throughput_25"] > 4
    assert np.abs(factor["completed_per_second"] - 1) < 0.01
