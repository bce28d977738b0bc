"""The arena: its board from made-up cells, its arrivals, and one order against the simulator."""

import json

import numpy as np
import pandas as pd
import pytest

from commands import contents, refused, ssjf
from ssjf.analysis.arena import board, cells
from ssjf.errors import InputError
from ssjf.experiments import paths
from ssjf.experiments.grid import experiment
from ssjf.experiments.runner import execute
from ssjf.experiments.runs.arena import ARRIVALS, rows
from ssjf.experiments.runs.steady import _gaps
from ssjf.experiments.specs import spec_of

METRICS = ["jct_mean", "jct_p99", "jct_p99.9", "jct_max", "slowdown_p99"]


def made_up():
    """Two cells; SSJF halves the mean in one and hardly moves it in the other."""
    values = {
        ("busy", "fcfs"): [10, 100, 200, 300, 50], ("busy", "ssjf"): [5, 150, 800, 900, 10],
        ("busy", "calm"): [6, 104, 218, 300, 20], ("idle", "fcfs"): [10, 20, 30, 40, 2],
        ("idle", "ssjf"): [9.8, 20, 30, 40, 2], ("idle", "calm"): [9.9, 40, 60, 80, 2],
    }  # fmt: skip
    keys = {"arrivals": "poisson", "slots": 1, "x": 0.9, "run": 0}
    return pd.DataFrame([
        keys | {"workload": workload, "series": series, "seed": seed}
        | dict(zip(METRICS, np.array(each) * (1 + seed), strict=True))
        for (workload, series), each in values.items() for seed in (0, 1)
    ])  # fmt: skip


def test_cells_and_board_by_hand():
    table = cells(made_up()).set_index(["workload", "series"])
    calm = table.loc[("busy", "calm")]
    assert calm[["gain", "p99", "p999", "max", "slowdown"]].tolist() == pytest.approx(
        [40, 4, 9, 0, -60]
    )
    assert calm["share"] == pytest.approx(80) and np.isnan(table.loc[("idle", "calm"), "share"])
    found = board(table.reset_index())
    assert found["series"].tolist() == ["calm", "ssjf"] and found["cells"].tolist() == [1, 1]
    assert found["kept"].tolist() == [1, 0] and found["worst_p999"].tolist()[1] == 300


@pytest.mark.parametrize("kind", ["bursts", "overload"])
def test_arrivals_keep_their_rate_and_shape(kind):
    gaps = np.diff(_gaps(ARRIVALS[kind], 200_000, seed=0), prepend=0)
    if kind == "bursts":
        assert gaps.mean() == pytest.approx(1, rel=0.05)
        assert gaps.std() / gaps.mean() == pytest.approx(3, rel=0.1)
    else:
        peak, rest = gaps[80_000:100_000], np.r_[gaps[:80_000], gaps[100_000:]]
        assert rest.mean() / peak.mean() == pytest.approx(1.4, rel=0.05)


def test_a_trace_is_looped_from_a_random_one_on():
    n = 60_000
    one, other = (np.diff(_gaps(ARRIVALS["azure"], n, seed), prepend=0) for seed in (0, 1))
    window = ARRIVALS["azure"].window
    assert np.allclose(one[:100], one[window : window + 100]) and not np.allclose(one, other)
    assert sorted(one[:window]) == pytest.approx(sorted(other[:window]), rel=1e-6)
    assert one[:window].mean() == pytest.approx(1, rel=1e-3)


def small(series, **more):
    """An order of the arena's on little traffic."""
    (spec,) = (each for each in experiment("arena").specs(seeds=1)
               if each.series == series and each.arrivals == "poisson"
               and each.workload.label.startswith("LMSYS"))  # fmt: skip
    values = spec.as_json() | {"batch_slots": [2], "loads": [0.9]} | more
    values["workload"] = values["workload"] | {"requests": 3000}
    return spec_of(values, "test")


def test_rows_are_those_of_the_committed_runs_kind():
    found = {name: execute(small(name)) for name in ("fcfs", "ssjf", "headstart:1", "due:3")}
    for table in found.values():
        assert table["slots"].tolist() == [2] and table["x"].tolist() == [pytest.approx(0.9)]
        assert {"jct_p99.9", "jct_max"} < {*table.columns}
    mean = {name: float(table["jct_mean"].iloc[0]) for name, table in found.items()}
    assert mean["ssjf"] < mean["due:3"] < mean["fcfs"]
    assert mean["ssjf"] < mean["headstart:1"] < mean["fcfs"]
    tiny = rows(small("headstart:1", times=1e-9))["jct_mean"].iloc[0]
    assert tiny == pytest.approx(mean["fcfs"], rel=1e-3)  # no head start is FCFS


def test_bad_cells_are_refused():
    with pytest.raises(InputError, match="contract"):
        small("tuner-static", contract="p99=0.5")
    with pytest.raises(InputError, match="arrivals"):
        small("fcfs", arrivals="weekly")


ENTRANT = """
import numpy as np


def entrant(queue, now):
    return queue.arrived_at + {} * np.log(queue.predicted_tokens)


entrant.in_time = "constant"
"""


def test_a_policy_in_a_file_of_its_own_gets_its_row(tmp_path, monkeypatch):
    monkeypatch.setenv("SSJF_ROOT", str(paths.root()))
    monkeypatch.setenv("SSJF_RAW", str(paths.raw()))
    monkeypatch.setenv("SSJF_RESULTS", str(tmp_path / "results"))
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "entering.py"
    file.write_text(ENTRANT.format(5))
    command = ["arena", "--policies", "entering:entrant,fcfs", "--workload", "lmsys",
               "--arrivals", "overload", "--seeds", 1, "--jobs", 1, "--json"]  # fmt: skip
    board = {each["series"]: each for each in json.loads(ssjf(*command).stdout)}
    mine, stored = board["entering:entrant (entered)"], board["ssjf"]
    assert mine["cells"] == stored["cells"] == 2 and 0 < mine["share"] < 100 == stored["share"]
    assert mine["worst_p999"] < stored["worst_p999"]
    again = board["fcfs (entered)"]  # the same requests as those of the stored runs
    assert again["share"] == again["worst_p99"] == again["worst_max"] == 0

    kept = contents(tmp_path / "results")
    assert len(kept) == 2 and json.loads(ssjf(*command).stdout)
    assert contents(tmp_path / "results") == kept
    file.write_text(ENTRANT.format(6))
    ssjf(*command)
    assert len(contents(tmp_path / "results")) == 3


def test_the_board_alone_is_that_of_what_is_stored():
    found = ssjf("arena", "--arrivals", "azure").stdout
    assert "tuner-static" in found and "due:1" not in found  # not there where the load changes


@pytest.mark.parametrize(
    "options, says",
    [
        (["--workload", "novels"], "unknown workload 'novels'; known: 90 / 10 mixture"),
        (
            ["--arrivals", "sine"],
            "unknown arrivals 'sine'; known: azure, bursts",
        ),
        (["--policies", "shortest"], "unknown policy 'shortest'; known: alise"),
        (["--seeds", 9], "9 is not in the range 1<=x<=3"),
    ],
)
def test_what_the_arena_does_not_know_is_one_sentence(options, says):
    assert says in refused("arena", *options)
