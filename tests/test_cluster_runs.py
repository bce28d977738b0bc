"""Runs of clusters: their rows, and what their specifications refuse."""

import json

import numpy as np
import pytest

from commands import refused, ssjf
from ssjf.errors import InputError
from ssjf.experiments.grid import experiment
from ssjf.experiments.runner import execute
from ssjf.experiments.runs.arena import rows as arena_rows
from ssjf.experiments.specs import spec_of
from ssjf.experiments.store import check_rows


def small(name="cluster", series="ssjf", **more):
    """A run of little traffic."""
    specs = [each for each in experiment(name).specs(seeds=1) if each.series == series]
    (spec,) = (each for each in specs if each.workload.label.startswith("reasoning"))
    values = spec.as_json() | {"replicas": [2], "loads": [0.9]} | more
    values["workload"] = values["workload"] | {"requests": 2000}
    return spec_of(values, "test")


def test_a_cluster_of_one_is_the_arenas_server():
    spec = small(replicas=[1], routers=["jsq"])
    (arena,) = (each for each in experiment("arena").specs(seeds=1)
                if each.series == "ssjf" and each.arrivals == "poisson"
                and each.workload.label == spec.workload.label)  # fmt: skip
    values = arena.as_json() | {"batch_slots": [8], "loads": [0.9]}
    values["workload"] = values["workload"] | {"requests": 2000}
    one, found = arena_rows(spec_of(values, "test")), execute(spec)
    for column in ("jct_mean", "jct_p99", "jct_max"):
        assert one[column].tolist() == found[column].tolist()


@pytest.mark.parametrize("name", ["cluster", "cluster-memory"])
def test_rows_are_a_router_each_on_the_same_traffic(name):
    spec = small(name)
    found = execute(spec)
    assert found["router"].tolist() == [*range(9)] and set(found["replicas"]) == {2}
    check_rows(found, spec.detail, "test")
    mean = dict(zip(spec.routers, found["jct_mean"], strict=True))
    assert mean["jsq"] <= mean["power-of-two"] < mean["random"]
    assert set(spec.columns) < set(found.columns)


def test_what_is_wrong_is_refused():
    for given, says in [({"routers": ["jqs"]}, "unknown router 'jqs'; known: affinity"),
                        ({"replicas": [0]}, "replicas"), ({"loads": [3.0]}, "loads")]:  # fmt: skip
        with pytest.raises(InputError, match=says):
            small(**given)


def test_the_command_line_serves_a_trace_by_a_cluster(tmp_path):
    trace = tmp_path / "trace.csv"
    rng = np.random.default_rng(0)
    rows = zip(rng.exponential(0.05, 300).cumsum(), rng.integers(1, 90, (300, 2)), strict=True)
    lines = [f"{at},{prompt},{output}" for at, (prompt, output) in rows]
    trace.write_text("\n".join(["arrived_at,prompt_tokens,output_tokens", *lines]))
    command = ["simulate", trace, "--slots", 2, "--policies", "fcfs,ssjf", "--predictor", "oracle"]
    one, same, found, by_work = (
        json.loads(ssjf(*command, *more, "--json").stdout)
        for more in ((), ("--replicas", 1), ("--replicas", 3, "--router", "jsq"),
                     ("--replicas", 3, "--router", "least-work"))
    )  # fmt: skip
    assert one == same and found["replicas"] == 3 and found["rho"] < 0.5 * one["rho"]
    means = [each["policies"][0]["jct_mean"] for each in (one, found, by_work)]
    assert means[1] < means[0] and means[1] != means[2]
    assert "on each of 3 replicas (jsq)" in ssjf(*command, "--replicas", 3).stdout
    assert "at least one replica" in refused(*command, "--replicas", 0)
    assert "unknown router 'jqs'; known: affinity" in refused(*command, "--router", "jqs")
