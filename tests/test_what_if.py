"""One sentence about a trace, and the numbers that it rests on."""

import math

import numpy as np
import pytest

from ssjf.errors import InputError
from ssjf.experiments import what_if
from ssjf.request import Requests
from ssjf.scheduler import Policy, policy
from ssjf.scheduler.orderings import fcfs
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


def compared(requests, *names, server=ONE, predictor="oracle", **options):
    chosen = [policy(name) for name in names]
    return what_if.compare(requests, chosen, PAPER, server, predictor, **options)


def test_fcfs_comes_first_and_once():
    for names in (["ssjf", "fcfs"], ["fcfs", "ssjf"], ["ssjf"]):
        assert compared(workload(0.4, n=300), *names)["policy"].tolist() == ["fcfs", "ssjf"]


def test_gains_are_paired():
    """The same order on the same requests gains nothing at all, with no uncertainty."""
    same = Policy("same", fcfs, "constant", uses_prediction=False)
    row = what_if.compare(workload(0.43), [same], PAPER, ONE, "oracle").iloc[1]
    assert (row.gain_percent, row.gain_low, row.gain_high) == (0, 0, 0)
    assert row.jct_mean > 0


def test_a_gain_is_the_fall_of_the_mean_and_its_interval_holds_it():
    table = compared(workload(0.43), "sjf", "ssjf", "hrrn", predictor="noise:0.5").set_index(
        "policy"
    )
    fall = 100 * (1 - table["jct_mean"] / table.loc["fcfs", "jct_mean"])
    assert fall.to_numpy() == pytest.approx(table["gain_percent"].to_numpy())
    assert (table["gain_low"] <= table["gain_percent"]).all()
    assert (table["gain_percent"] <= table["gain_high"]).all()


def test_the_same_seed_gives_the_same_table_and_another_other_predictions():
    tables = [compared(workload(0.4), "ssjf", predictor="noise:1", seed=s) for s in (1, 1, 2)]
    assert tables[0].equals(tables[1])
    assert tables[0].jct_mean[1] != tables[2].jct_mean[1]


@pytest.mark.parametrize("gap", [1.0, 4.0, 10.0])
def test_the_load_of_equal_requests_at_equal_gaps_is_rate_times_service(gap):
    """D/D/1: 100 tokens take 2.1 s alone."""
    requests = Requests(gap * np.arange(50), np.ones(50), np.full(50, 100))
    assert what_if.offered_load(requests, PAPER, ONE) == pytest.approx(2.1 / gap)


@pytest.mark.parametrize("slots", [2, 8])
def test_slots_share_the_load(slots):
    requests = synthetic.requests(800, np.random.default_rng(0))
    requests = requests.arriving(np.arange(800.0))
    one, more = (what_if.offered_load(requests, PAPER, Server(s)) for s in (1, slots))
    assert more == pytest.approx(one / slots, rel=0.05)


def test_the_load_of_an_instant_is_infinite_and_of_one_request_unknown():
    assert what_if.offered_load(Requests([1, 1], [1, 1], [1, 1]), PAPER, ONE) == math.inf
    assert math.isnan(what_if.offered_load(Requests([1], [1], [1]), PAPER, ONE))


@pytest.mark.parametrize("scale", [0, -1, math.nan, math.inf])
def test_a_scale_must_be_above_0(scale):
    with pytest.raises(InputError, match="it must be above 0"):
        what_if.rescaled(workload(1), scale)


def test_the_predictor_asked_for_or_the_traces_own_or_noise():
    plain = workload(1, n=10)
    own = Requests(plain.arrived_at, plain.prompt_tokens, plain.output_tokens,
                   {"predicted_tokens": np.ones(10)})  # fmt: skip
    assert what_if.predictor_for(plain, None) == what_if.DEFAULT_PREDICTOR
    assert what_if.predictor_for(own, None) == "column:predicted_tokens"
    assert what_if.predictor_for(own, "column") == "column:predicted_tokens"
    assert what_if.predictor_for(own, "oracle") == "oracle"
    with pytest.raises(InputError, match="the trace has none"):
        what_if.predictor_for(plain, "column")


def test_a_token_budget_grows_with_the_slots():
    assert what_if.with_slots(Server(), None) == Server()
    assert what_if.with_slots(Server(), 10_000).token_budget == 10_000
    with pytest.raises(InputError, match="slots is 0; it must be at least 1"):
        what_if.with_slots(Server(), 0)
