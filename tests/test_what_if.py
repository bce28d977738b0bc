"""What to do with a trace: switch it on, with a contract, or leave it off; and the numbers."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from commands import refused, ssjf
from ssjf.cli.proxy import read_prompts
from ssjf.errors import InputError
from ssjf.experiments import what_if
from ssjf.experiments.what_if import recommend
from ssjf.proxy.io import load
from ssjf.request import Requests
from ssjf.scheduler import Policy, policy
from ssjf.scheduler.orderings import fcfs
from ssjf.serving.options import ServeOptions
from ssjf.simulator.contract import Contract
from ssjf.simulator.profile import profile
from ssjf.simulator.server import Server
from ssjf.workload import synthetic
from ssjf.workload.traces import load_trace

PAPER = profile("ssjf-paper")
ONE = Server(slots=1)


def workload(rate, n=1_500, output=None, seed=0):
    """Poisson arrivals of answers of 100 tokens on average (2.1 s alone), or of the given ones."""
    rng = np.random.default_rng(seed)
    output = synthetic.lognormal(n, 100, 0.8, rng) if output is None else np.full(n, output)
    return Requests(synthetic.arrivals("poisson", n, rate, rng), np.ones(n), output)


def compared(requests, *names, predictor="oracle", **options):
    served = what_if.WhatIf(requests, PAPER, ONE, predictor, **options)
    return served.compare([policy(name) for name in names])


def test_fcfs_comes_first_and_once():
    for names in (["ssjf", "fcfs"], ["fcfs", "ssjf"], ["ssjf"]):
        assert compared(workload(0.4, n=300), *names)["policy"].tolist() == ["fcfs", "ssjf"]


def test_gains_are_paired():
    """The same order on the same requests gains nothing at all, with no uncertainty."""
    same = Policy("same", fcfs, "constant", uses_prediction=False)
    row = what_if.WhatIf(workload(0.43), PAPER, ONE).compare([same]).iloc[1]
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
    assert what_if.WhatIf(requests, PAPER, ONE).offered_load == pytest.approx(2.1 / gap)


@pytest.mark.parametrize("slots", [2, 8])
def test_slots_share_the_load(slots):
    requests = synthetic.requests(800, np.random.default_rng(0))
    requests = requests.arriving(np.arange(800.0))
    one, more = (what_if.WhatIf(requests, PAPER, Server(s)).offered_load for s in (1, slots))
    assert more == pytest.approx(one / slots, rel=0.05)


def test_the_load_of_an_instant_is_infinite_and_of_one_request_unknown():
    instant, one = Requests([1, 1], [1, 1], [1, 1]), Requests([1], [1], [1])
    assert what_if.WhatIf(instant, PAPER, ONE).offered_load == math.inf
    assert math.isnan(what_if.WhatIf(one, PAPER, ONE).offered_load)


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


# What is advised


def advised(requests, *names, predictor="oracle"):
    served = what_if.WhatIf(requests, PAPER, ONE, predictor)
    table = served.compare([policy(name) for name in names])
    return recommend(table, served.offered_load, served.under(what_if.CONTRACT))


def row(name, gain, p99, low=None, **more):
    """A row of a table in which FCFS's p99 and p99.9 are 100 s and its queue 5 requests deep."""
    return {"policy": name, "gain_percent": gain, "gain_low": gain - 1 if low is None else low,
            "gain_high": gain + 1, "jct_p99": p99, "jct_p99.9": 100.0, "queue_depth_mean": 5.0,
            **more}  # fmt: skip


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
    found = recommend(what_if.WhatIf(requests, PAPER, ONE).compare([longest]), 0.9)
    assert found.sentence.startswith("Leave it off: longest raises mean JCT by ")


def test_a_sure_gain_with_the_tail_kept_is_switched_on():
    found = recommend(table(row("ssjf", 30, 104)), 0.8)
    assert (found.action, found.policy) == ("switch on", "ssjf")
    assert found.sentence == (
        "Switch it on: ssjf lowers mean JCT by 30 % (95 % interval 29 to 31), raises its p99 "
        "by 4 % and leaves its p99.9 as it is (ρ 0.80, mean queue depth 5.0 under FCFS)."
    )


def test_where_the_tail_is_harmed_the_order_within_the_contract_is_advised():
    under = table(row("headroom", 12, 104, order="headroom:3,0.5"))[1:]
    found = recommend(table(row("ssjf", 30, 137)), 0.8, under)
    assert (found.action, found.policy) == ("contract", "headroom:3,0.5")
    assert "`ssjf serve --contract p99=1.05,p999=1.1`: headroom lowers mean JCT" in found.sentence
    assert "without it ssjf lowers mean JCT by 30 %" in found.sentence


@pytest.mark.parametrize(
    "more",
    [{"jct_p99": 106}, {"jct_p99.9": 115.0}, {"gain_low": -1.0}],
    ids=lambda more: next(iter(more)),
)
def test_an_order_that_breaks_the_contract_or_gains_not_surely_is_not_advised(more):
    under = table(row("headroom", 12, 104, order="headroom:3,0.5") | more)[1:]
    found = recommend(table(row("ssjf", 30, 137)), 0.8, under)
    assert found.action == "leave off" and "unless the mean alone matters" in found.sentence
    if "gain_low" not in more:
        wider = recommend(table(row("ssjf", 30, 137)), 0.8, under, Contract(1.06, 1.2))
        assert wider.policy == "headroom:3,0.5"


def test_another_policy_that_keeps_the_tail_is_preferred_to_one_that_gains_less():
    under = table(row("headroom", 5, 100, order="headroom:3,0.5"))[1:]
    found = recommend(table(row("ssjf", 30, 137), row("hrrn", 20, 103)), 0.8, under)
    assert (found.action, found.policy) == ("switch on", "hrrn")


@pytest.mark.parametrize("seed", range(2))
def test_what_is_advised_keeps_the_tail_of_the_trace_itself(seed):
    """By its name, which anyone can simulate and serve with."""
    requests = workload(0.43, n=6000, seed=seed)
    found = advised(requests, "ssjf", predictor="noise:0.5")
    assert found.action == "contract"
    served = what_if.WhatIf(requests, PAPER, ONE, "noise:0.5")
    first, order = served.compare([policy(found.policy)]).to_dict("records")
    assert order["jct_p99"] <= 1.05 * first["jct_p99"] and order["gain_low"] > 0
    assert order["jct_p99.9"] <= 1.10 * first["jct_p99.9"]
    assert f"lowers mean JCT by {order['gain_percent']:.0f} %" in found.sentence
    ServeOptions(policy=found.policy)


def test_classes_that_reach_0_have_no_order_under_a_contract():
    requests = workload(0.43, n=50)
    classes = {"predicted_tokens": np.zeros(50)}
    with_classes = Requests(requests.arrived_at, requests.prompt_tokens, requests.output_tokens,
                            classes)  # fmt: skip
    served = what_if.WhatIf(with_classes, PAPER, ONE, "column:predicted_tokens")
    assert served.under(what_if.CONTRACT).empty


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


# Predictions learnt from the trace itself


def prompted(tmp_path, n=400):
    """A trace of two kinds of prompts whose lengths no proxy knows."""
    rng = np.random.default_rng(0)
    long = rng.integers(0, 2, n) > 0
    rows = [
        {"arrived_at": 3.0 * i, "prompt_tokens": 5, "output_tokens": 300 if each else 10,
         "prompt": f"{'zu' if each else 'pa'} {i % 7}"}
        for i, each in enumerate(long.tolist())
    ]  # fmt: skip
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path, long


def test_learning_orders_a_trace_better_the_longer_it_lasts(tmp_path):
    path, long = prompted(tmp_path)
    prompts = read_prompts(str(path))
    found = what_if.learning(load_trace(path), prompts, PAPER, ONE).predictions["predicted_tokens"]
    assert np.array_equal(found[:1], load("builtin").predict(prompts[:1]).tokens)
    late = np.arange(len(long)) >= 200
    assert found[late & long].min() > 3 * found[late & ~long].max()


def test_simulate_learns_by_its_column_and_says_so(tmp_path):
    path, _ = prompted(tmp_path)
    options = (path, "--learn", "--slots", "1", "--policies", "ssjf")
    done = ssjf("simulate", *options, "--json")
    assert json.loads(done.stdout)["predictor"] == "column:predicted_tokens"
    assert "leave out --predictor oracle" in refused("simulate", *options, "--predictor", "oracle")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    bare = tmp_path / "bare.jsonl"
    bare.write_text("".join(json.dumps({**row, "prompt": None}) + "\n" for row in rows))
    assert "column prompt: None is not text" in refused("simulate", bare, "--learn")
    kept = ("arrived_at", "prompt_tokens", "output_tokens")
    bare.write_text("".join(json.dumps({key: row[key] for key in kept}) + "\n" for row in rows))
    assert "column 'prompt' is missing" in refused("simulate", bare, "--learn")
