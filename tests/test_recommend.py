"""What to do with a trace: switch it on, leave it off, or cap it; and the sentence that says so."""

import numpy as np
import pandas as pd
import pytest

from ssjf.experiments import what_if
from ssjf.experiments.recommend import CAPS_SECONDS, capped, recommend
from ssjf.request import Requests
from ssjf.scheduler import Policy, policy
from ssjf.simulator.profile import profile
from ssjf.simulator.server import Server
from ssjf.workload import synthetic

PAPER = profile("ssjf-paper")
ONE = Server(slots=1)


def workload(rate, n=1_500, output=None, seed=0):
    """Poisson arrivals of answers of 100 tokens on average (2.1 s alone), or of the given ones."""
    rng = np.random.default_rng(seed)
    output = synthetic.lognormal(n, 100, 0.8, rng) if output is None else np.full(n, output)
    return Requests(synthetic.arrivals("poisson", n, rate, rng), np.ones(n), output)


def advised(requests, *names, predictor="oracle", caps=True):
    table = what_if.compare(requests, [policy(name) for name in names], PAPER, ONE, predictor)
    rho = what_if.offered_load(requests, PAPER, ONE)
    bounded = capped(requests, PAPER, ONE, predictor) if caps else None
    return recommend(table, rho, bounded)


def row(name, gain, p99, low=None, **more):
    """A row of a table in which FCFS's p99 is 100 s and its queue 5 requests deep."""
    return {"policy": name, "gain_percent": gain, "gain_low": gain - 1 if low is None else low,
            "gain_high": gain + 1, "jct_p99": p99, "queue_depth_mean": 5.0, **more}  # fmt: skip


def table(*rows):
    return pd.DataFrame([row("fcfs", 0, 100.0, 0), *rows])


def test_where_nobody_waits_there_is_nothing_to_reorder():
    found = advised(workload(0.01), "ssjf")
    assert found.action == "leave off" and found.policy is None
    assert found.sentence.startswith("Leave it off: there is hardly a queue to reorder (ρ 0.02, ")
    assert found.sentence.endswith("under FCFS), so every order is FCFS.")


def test_where_lengths_are_equal_it_stays_off():
    found = advised(workload(0.43, output=100), "ssjf")
    assert found.sentence.startswith("Leave it off: ssjf leaves mean JCT as it is (95 % interval 0")


def test_a_harmful_order_is_said_to_raise_the_mean():
    requests = workload(0.43)
    longest = Policy("longest", lambda queue, now: -queue.predicted_tokens, "constant")
    found = recommend(what_if.compare(requests, [longest], PAPER, ONE, "oracle"), 0.9)
    assert found.sentence.startswith("Leave it off: longest raises mean JCT by ")


def test_a_sure_gain_with_the_tail_kept_is_switched_on():
    found = recommend(table(row("ssjf", 30, 104)), 0.8)
    assert (found.action, found.policy, found.overtake_seconds) == ("switch on", "ssjf", None)
    assert found.sentence == (
        "Switch it on: ssjf lowers mean JCT by 30 % (95 % interval 29 to 31) and raises its p99 "
        "by 4 % (ρ 0.80, mean queue depth 5.0 under FCFS)."
    )


def test_a_harmed_tail_is_capped_by_the_best_cap_that_keeps_it():
    caps = table(
        row("ssjf", 5, 100, overtake_seconds=1.0),
        row("ssjf", 12, 104, overtake_seconds=3.0),
        row("ssjf", 20, 106, overtake_seconds=10.0),
        row("ssjf", 15, 100, low=-1, overtake_seconds=30.0),
    )[1:]
    found = recommend(table(row("ssjf", 30, 137)), 0.8, caps)
    assert (found.action, found.policy, found.overtake_seconds) == ("cap", "ssjf", 3.0)
    assert "`ssjf serve --overtake-seconds 3`: ssjf lowers mean JCT by 12 %" in found.sentence
    assert "without it ssjf lowers mean JCT by 30 %" in found.sentence


def test_another_policy_that_keeps_the_tail_is_preferred_to_a_cap_that_gains_less():
    caps = table(row("ssjf", 5, 100, overtake_seconds=1.0))[1:]
    found = recommend(table(row("ssjf", 30, 137), row("hrrn", 20, 103)), 0.8, caps)
    assert (found.action, found.policy) == ("switch on", "hrrn")


def test_where_no_cap_keeps_the_tail_it_stays_off():
    caps = table(row("ssjf", 5, 120, overtake_seconds=1.0))[1:]
    found = recommend(table(row("ssjf", 30, 137)), 0.8, caps)
    assert found.action == "leave off" and "unless the mean alone matters" in found.sentence


@pytest.mark.parametrize("seed", range(2))
def test_a_cap_that_is_advised_keeps_the_tail_of_the_trace_itself(seed):
    requests = workload(0.43, seed=seed)
    found = advised(requests, "ssjf", predictor="noise:0.5")
    assert found.action == "cap" and found.overtake_seconds in CAPS_SECONDS
    rows = capped(requests, PAPER, ONE, "noise:0.5").set_index("overtake_seconds")
    fcfs = what_if.fcfs(requests, PAPER, ONE)
    limit = 1.05 * np.percentile(fcfs.finished_at - requests.arrived_at, 99)
    assert rows.loc[found.overtake_seconds, "jct_p99"] <= limit


def test_classes_that_reach_0_are_not_capped():
    requests = workload(0.43, n=50)
    classes = {"predicted_tokens": np.zeros(50)}
    with_classes = Requests(requests.arrived_at, requests.prompt_tokens, requests.output_tokens,
                            classes)  # fmt: skip
    assert capped(with_classes, PAPER, ONE, "column:predicted_tokens").empty


def test_overload_is_named():
    assert (
        "overloaded, so waits grow for as long as the trace lasts)."
        in advised(workload(1.0), "ssjf").sentence
    )


def test_too_few_requests_give_no_interval_and_no_advice_to_switch_on():
    found = advised(workload(1.0, n=15), "ssjf")
    assert found.action == "leave off"
    assert "(too few requests for an interval)" in found.sentence


def test_only_fcfs_was_asked_for():
    assert advised(workload(0.4), "fcfs").sentence.startswith("Only FCFS was asked for (ρ 0.")


def test_the_oracle_is_advised_only_where_nothing_else_was_asked():
    """Nobody has its knowledge: it bounds what the others can gain."""
    assert "ssjf lowers" in advised(workload(0.43), "sjf", "ssjf", predictor="noise:1.0").sentence
    assert "sjf lowers" in advised(workload(0.43), "sjf").sentence
