"""Orders of the field and ours that spare the tail, by hand; scores that the simulator compiles."""

import math
from collections import deque

import numpy as np
import pytest

from ssjf.errors import InputError
from ssjf.request import Requests
from ssjf.scheduler import AtArrival, Moving, Policy, Queue, policy
from ssjf.simulator import contract
from ssjf.simulator.contract import Contract, Shadow, Tuner, best, ladder, trials, tuned
from ssjf.simulator.profile import Profile, profile
from ssjf.simulator.server import Memory, Server
from ssjf.simulator.simulate import simulate

STEPS = Profile("steps", step_seconds=1.0)
PAPER = profile("ssjf-paper")


def traffic(n=2000, seed=0, slots=1, rho=0.9, sigma=0.5):
    """Log-normal lengths at a load, and what a predictor with noise says of them."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(np.rint(rng.lognormal(4.5, 0.8, n)), 1, 2000).astype(np.int64)
    alone = PAPER.alone_seconds(np.ones(n), lengths).mean()
    arrived = np.cumsum(rng.exponential(alone / slots / rho, n))
    return Requests(arrived, np.ones(n, int), lengths), lengths * rng.lognormal(0, sigma, n)


@pytest.mark.parametrize("name", ["due:3,20,60,0.02", "trail:0.8", "elis", "gittins:0.5"])
@pytest.mark.parametrize("kept", [None, "swap", "ewt", "defer"])
def test_a_compiled_score_serves_as_the_same_function_in_python_does(name, kept):
    requests, predicted = traffic(600, slots=4, rho=1.1)
    chosen = policy(name)
    preempts = chosen.preempts or kept is not None
    memory = Memory(on_preemption=kept, host_tokens=20_000) if kept else None
    server = Server(slots=4, kv_tokens=4000)
    runs = [simulate(requests, Policy("p", score, preempts=preempts), PAPER, server, predicted,
                     memory=memory)
            for score in (chosen.score, lambda queue, now: chosen.score(queue, now))]  # fmt: skip
    assert (runs[0].finished_at == runs[1].finished_at).all()
    assert runs[0].counters == runs[1].counters
    assert runs[0].preemptions.any() == preempts or kept == "defer"


def order_of(name, arrived, predicted, now=0.0, generated=0):
    n = len(arrived)
    made = np.full(n, generated) if np.isscalar(generated) else np.array(generated)
    queue = Queue(np.array(arrived, float), np.ones(n, int), np.array(predicted, float), made)
    return np.argsort(policy(name).scores(queue, now), kind="stable").tolist()


def test_static_keys_by_hand():
    """ln 100 - ln 10 = 2.303: ten times shorter is worth so many times c."""
    assert order_of("headstart:10", [0, 20], [100, 10]) == [1, 0]
    assert order_of("headstart:10", [0, 24], [100, 10]) == [0, 1]
    assert order_of("headstart:0", [0, 1], [100, 1]) == [0, 1]
    # ln 100 - ln 50 = 0.693: beyond 100 tokens a prediction is worth no more
    assert order_of("headstart:10,100", [0, 6], [9999, 50]) == [1, 0]
    assert order_of("headstart:10,100", [0, 7], [9999, 50]) == [0, 1]
    seconds = 30 / math.log(1 / 0.9)  # TIE: score 0.9^(wait / 30), the smallest first
    for wait in (600, 700):
        decayed = [100 * 0.9 ** (wait / 30), 10.0]
        assert order_of("tie", [0, wait], [100, 10]) == np.argsort(decayed).tolist()
    assert 600 < seconds * math.log(10) < 700
    # γ-boost of w = 2 s and 0.2 s, 1/γ = 10 s: ln(1 - e^-0.2) = -1.708, ln(1 - e^-0.02) = -3.922
    assert order_of("gamma-boost:10,0.02", [0, 22], [100, 10]) == [1, 0]
    assert order_of("gamma-boost:10,0.02", [0, 22.2], [100, 10]) == [0, 1]
    assert order_of("clairvoyant", [0, 1, 2, 3], [600, 100, 10, 300]) == [1, 2, 3, 0]
    assert order_of("ltr", [0, 1, 2], [3, 1, 2]) == [1, 2, 0]


def test_who_has_waited_long_goes_first_after_clairvoyant_and_ltr():
    """Six answers of 10 steps in one slot; the long one, of 100, has come first but for one."""
    requests = Requests(np.zeros(7), np.ones(7, int), np.array([10, 100, *[10] * 5]))
    predicted = np.array([10.0, 1000.0, *[10.0] * 5])
    for name, seconds in (("clairvoyant", 15), ("ltr", 30)):
        done = simulate(requests, policy(f"{name}:{seconds}"), STEPS, Server(slots=1), predicted)
        assert done.scheduled_at[1] == math.ceil(seconds / 10) * 10


def in_flight(arrived, predicted, there, tokens):
    n = len(arrived)
    none = np.zeros(n, int)
    columns = (np.array(each, float) for each in (predicted, tokens))
    predicted, tokens = columns
    return Queue(np.array(arrived, float), none, predicted, none, np.array(there), tokens)


def test_headroom_by_hand():
    """A head start of 10 s, and half of the room to 40 s, from 10 to 1000 tokens (ln 100 = 4.605).

    Of 1 slot, 1 s a token: where nothing is in flight 1000 tokens are put back by 10 · 4.605 and
    20 s, 100 by half of that, 10 by nothing; where 20 tokens are, the room is half as large; and
    none is left where 50 are.
    """
    chosen = policy("headroom:10,0.5,40,10,1000,1,1")
    queue = in_flight([0] * 7, [10, 100, 1000, 9999, 1, 1000, 1000], [0, 0, 0, 0, 0, 1, 2],
                      [0, 0, 0, 0, 0, 20, 50])  # fmt: skip
    long = 10 * math.log(100)
    expected = [0, (long + 20) / 2, long + 20, long + 20, 0, long + 10, long]
    assert chosen.scores(queue, 0.0).tolist() == pytest.approx(expected)
    # of 4 slots with 5 in flight two must end, of 30 tokens on average: 2 · 30 / 4 = 15 s
    wide = policy("headroom:0,1,40,10,1000,1,4")
    assert wide.scores(in_flight([0], [1000], [5], [150]), 0.0)[0] == pytest.approx(25)
    assert wide.scores(in_flight([0], [1000], [3], [150]), 0.0)[0] == pytest.approx(40)
    with pytest.raises(InputError, match="a key made at arrival needs the requests in flight"):
        order_of("headroom", [0], [1])
    with pytest.raises(InputError, match="10 tokens must be above 0 and below 10"):
        policy("headroom:1,1,40,10,10")
    with pytest.raises(InputError, match="headroom: 0 slots; there must be at least 1"):
        policy("headroom:1,1,40,10,20,1,0")
    with pytest.raises(InputError, match="policy mine: promote_after needs in_time 'constant', an"):
        Policy("mine", chosen.score, promote_after=lambda queue: queue.arrived_at)


def counts(arrived, predicted, there, tokens, weight):
    return arrived + weight * predicted * (1 + there) + math.sin(tokens)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kv_tokens", [None, 2000])
def test_a_key_made_at_arrival_is_of_those_in_flight_then(seed, kv_tokens):
    """The keys are made again from what the run says of itself, and served as fixed ones: the same.

    A request arrives when the step under way ends, or at once where none is.
    """
    requests, predicted = traffic(400, seed, slots=12, rho=1.3)
    arrived = np.floor(50 * requests.arrived_at)  # many at once, and steps that end just then
    requests = Requests(arrived, requests.prompt_tokens, requests.output_tokens)
    server = Server(slots=12, kv_tokens=kv_tokens)
    chosen = Policy("counts", AtArrival(counts, (0.1,)))
    done = simulate(requests, chosen, STEPS, server, predicted)
    keys = np.empty(len(requests))
    for i in range(len(requests)):
        # whole steps of 1 s from whole seconds: what has ended by its arrival is not there
        there = np.flatnonzero(done.finished_at[:i] > arrived[i])
        keys[i] = counts(arrived[i], predicted[i], len(there), predicted[there].sum(), 0.1)
    fixed = Policy("fixed", lambda queue, now: keys, "constant")
    again = simulate(requests, fixed, STEPS, server, predicted)
    assert (again.finished_at == done.finished_at).all()
    assert (np.diff(done.scheduled_at) < 0).any()
    if kv_tokens:
        assert done.preemptions.any()


def test_one_that_came_in_the_middle_of_a_step_sees_what_is_there_at_its_end():
    """The third, of 2.5 s, is seen at 3 s, when the second has ended: it sees the first alone."""
    key = AtArrival(lambda arrived, predicted, there, tokens: arrived - 2.45 * there)
    requests = Requests(np.array([0.0, 0.0, 2.5, 2.6]), np.ones(4, int), np.array([3, 3, 5, 1]))
    done = simulate(requests, Policy("key", key), STEPS, Server(slots=1), np.ones(4))
    assert done.finished_at.tolist() == [7, 3, 12, 4]  # keys 0, -2.45, 0.05 (not -2.4), -2.3


def test_due_counts_who_is_about_to_be_late_and_gives_up_who_is():
    """η 3, w 10 s, tail 100 s, 1 s a token: at slack 0 a request counts four times."""
    name = "due:3,10,100,1"
    assert order_of(name, [0, 0], [30, 10], now=0) == [1, 0]
    # 85 - 64 - 20 leaves 1 s of slack, and the other, which has just come, 75 s:
    # (1 + 3 / 1.1) / 20 = 0.186 is more than (1 + 3 / 8.5) / 10 = 0.135
    assert order_of(name, [0, 64], [20, 10], now=64) == [0, 1]
    assert order_of(name, [0, 64], [20, 10], now=66) == [1, 0]  # it is late: shortest first


def test_trail_keeps_whoever_is_beyond_its_limit():
    assert order_of("trail:0.8", [0, 1, 2], [100, 50, 10], generated=[30, 0, 0]) == [2, 1, 0]
    # beyond the limit one is the last of those that wait, but not of those that run
    assert order_of("trail:0.2", [0, 1, 2], [100, 50, 10], generated=[30, 0, 0]) == [2, 1, 0]
    assert order_of("trail-first:0.2", [0, 1, 2], [100, 50, 10], generated=[30, 0, 0]) == [0, 2, 1]
    requests = Requests(np.array([0.0, 20.0]), np.ones(2, int), np.array([100, 10]))
    for limit, first in ((0.8, 1), (0.1, 0)):
        done = simulate(requests, policy(f"trail:{limit}"), STEPS, Server(slots=1),
                        requests.output_tokens.astype(float))  # fmt: skip
        assert np.argmin(done.finished_at) == first


def test_orders_by_the_prompt_by_hand():
    """At γ = 10/s a prompt of 1000 tokens has (1/10) · ln(1 / (1 - e^-0.64)) = 0.0749 s of head
    start, one of a token 0.7354 s: 0.6605 s more."""

    def order(name, arrived, prompts, now=0.0):
        zeros = np.zeros(len(arrived), int)
        queue = Queue(np.array(arrived, float), np.array(prompts), zeros + np.nan, zeros)
        return np.argsort(policy(name).scores(queue, now), kind="stable").tolist()

    assert order("uniboost", [0, 0.67], [1000, 1]) == [0, 1]
    assert order("uniboost", [0, 0.65], [1000, 1]) == [1, 0]
    assert order("sglang-hrrn", [0, 8], [100, 10], now=9) == [1, 0]  # 9 / 100 < 1 / 10
    assert order("sglang-hrrn", [0, 8], [100, 10], now=8.5) == [0, 1]
    with pytest.raises(InputError, match="uniboost: γ is 0 per second; it must be above 0"):
        policy("uniboost:0")


def test_a_victim_rule_is_of_the_same_parameters_as_a_moving_score():
    kept = policy("trail:0.5").victims
    for score in (policy("ssjf").score, Moving(kept.function, (0.4,)), policy("headroom").score):
        with pytest.raises(InputError, match="policy mine: victims needs a Moving score with the"):
            Policy("mine", score, victims=kept)


def test_mlfq_goes_down_a_level_after_each_doubling():
    """Quanta of 4 tokens: levels begin at 0, 4, 12 and 28."""
    made = [3, 4, 11, 12, 27, 28]
    assert order_of("mlfq:4", [9, 8, 7, 6, 5, 4], [1] * 6, generated=made) == [0, 2, 1, 4, 3, 5]
    requests = Requests(np.array([0.0, 6.0]), np.ones(2, int), np.array([100, 4]))
    done = simulate(requests, policy("mlfq:4"), STEPS, Server(slots=1))
    assert done.finished_at.tolist() == [104, 10]  # the second comes while the first is at level 1


def test_elis_looks_again_every_fifty_tokens():
    assert order_of("elis", [0, 1], [100, 60], generated=[49, 0]) == [1, 0]
    assert order_of("elis", [0, 1], [100, 60], generated=[50, 0]) == [0, 1]
    assert order_of("elis", [0, 1], [100, 120], generated=[100, 0]) == [0, 1]  # 200 - 100


def test_gittins_index_is_the_best_ratio_by_plain_quadrature():
    """Against a fine grid: chance to end within so many tokens over the tokens it takes."""
    from scipy.stats import lognorm

    for generated in (0, 20, 90, 150):
        length = lognorm(s=0.5, scale=100.0)
        at = np.linspace(generated, 3000, 200_001)
        alive = length.sf(at)
        areas = np.concatenate([[0], np.cumsum((alive[1:] + alive[:-1]) / 2 * np.diff(at))])
        index = ((alive[0] - alive[1:]) / areas[1:]).max()
        queue = Queue(np.zeros(1), np.ones(1, int), np.array([100.0]), np.array([generated]))
        assert policy("gittins:0.5").scores(queue, 0.0)[0] == pytest.approx(1 / index, rel=0.03)


def test_numbers_of_a_policy_are_checked():
    with pytest.raises(InputError, match="'x' is not a finite number of at least 0"):
        policy("headstart:x")
    with pytest.raises(InputError, match="gamma-boost takes at most 2 numbers"):
        policy("gamma-boost:1,2,3")
    with pytest.raises(InputError, match="mlfq: a quantum of 0 tokens; it must be above 0"):
        policy("mlfq:0")
    with pytest.raises(InputError, match="up to 8 finite parameters"):
        Moving(math.pow, (1.0,) * 9)


def test_a_score_that_cannot_be_compiled_is_one_sentence():
    requests, predicted = traffic(20)
    for function, given in ((lambda a, p, g, now: str(p), ()), (lambda a, p, g, now: p, (1.0,))):
        chosen = Policy("odd", Moving(function, given))
        with pytest.raises(InputError, match=r"score <lambda> cannot be compiled with . param"):
            simulate(requests, chosen, PAPER, Server(slots=1), predicted)


def test_a_contract_is_read_and_refused():
    assert Contract.of("p99=1.2") == Contract(1.2, 1.10)
    for text, words in (("p95=1", "unknown quantile 'p95'; known: p99, p999"),
                        ("p99=0.9", "at least 1"), ("p99=much", "'much' is not a number"),
                        ("p99=nan", "at least 1")):  # fmt: skip
        with pytest.raises(InputError, match=words):
            Contract.of(text)


def test_the_shadow_by_hand():
    """One slot, answers of 10 s at 0, 0 and 100: waits 0, 10 and 0."""
    requests = Requests(np.array([0.0, 0.0, 100.0]), np.ones(3, int), np.full(3, 10))
    shadow = Shadow.of(simulate(requests, policy("fcfs"), STEPS, Server(slots=1)))
    tails = [pytest.approx(np.quantile(each, 0.99)) for each in ([10, 20, 10], [0, 10, 0])]
    assert shadow == (10.0, tails[0], 1.0, tails[1])
    predicted = np.arange(1.0, 102.0)
    keys = ladder(shadow, predicted, 4)
    assert keys["head start 2w, room 0.3"] == (20.0, 0.3, shadow.tail_wait, 2.0, 81.0, 1.0, 4.0)
    assert len({*keys.values()}) == len(contract.HEADSTARTS) * len(contract.SHARES)
    alike = ladder(shadow, np.ones(9), 4)
    assert {each[3:5] for each in alike.values()} == {(1.0, 2.0)}


def test_trials_say_what_each_order_does_to_this_traffic():
    requests, predicted = traffic(4000)
    server = Server(slots=1)
    tried = trials(requests, predicted, PAPER, server, Contract())
    assert tried[0].name == "fcfs" and tried[0].keeps and tried[0].gain_percent == 0
    row = tried[1]
    assert row.name == "head start 4w, room 0.8"
    headroom = f"headroom:{','.join(map(repr, row.parameters))}"
    fcfs, order = (simulate(requests, policy(name), PAPER, server, predicted)
                   for name in ("fcfs", headroom))  # fmt: skip
    jct = [done.finished_at - requests.arrived_at for done in (fcfs, order)]
    assert row.gain_percent == pytest.approx(100 * (1 - jct[1].mean() / jct[0].mean()))
    assert row.p999 == pytest.approx(np.quantile(jct[1], 0.999) / np.quantile(jct[0], 0.999))
    assert not row.keeps  # the tail of the longest head start is far beyond 1.1
    chosen = best(tried)
    assert chosen.keeps and chosen.p99 <= 1.06 and chosen.gain_percent > 0
    loose = best(trials(requests, predicted, PAPER, server, Contract(1e6, 1e6)))
    assert loose.gain_percent == max(each.gain_percent for each in tried)


def test_head_starts_are_in_the_waits_of_all_that_was_seen():
    """A burst is replayed with head starts that the quiet before it makes shorter."""
    quiet, predicted = traffic(2000, rho=0.7)
    burst = Requests(quiet.arrived_at / 1.3, quiet.prompt_tokens, quiet.output_tokens)
    seen = deque(maxlen=2)
    first, then, again = (
        {each.name: each for each in trials(requests, predicted, PAPER, Server(slots=1),
                                            Contract(), earlier=seen)}
        for requests in (quiet, burst, burst)
    )  # fmt: skip
    name = "head start 2w, room 0.3"
    alone = {
        each.name: each for each in trials(burst, predicted, PAPER, Server(slots=1), Contract())
    }
    for i in (0, 2):  # head start, tail of the waits
        parts = [each[name].parameters[i] for each in (first, alone, then)]
        assert parts[0] < parts[2] < parts[1] and parts[2] == pytest.approx(
            (parts[0] + parts[1]) / 2
        )
    assert again[name].parameters == pytest.approx(alone[name].parameters)  # the quiet is forgotten


def test_nothing_qualifies_where_predictions_say_nothing():
    requests, predicted = traffic(6000, rho=0.95)
    shuffled = np.random.default_rng(1).permutation(predicted)
    tried = trials(requests, shuffled, PAPER, Server(slots=1), Contract())
    assert best(tried).name == "fcfs"


def test_a_tuned_run_changes_order_as_requests_finish():
    """One that is never changed is the policy itself; one that is keeps the contract, and gains."""
    requests, predicted = traffic(30_000, rho=0.9)
    server = Server(slots=1)
    plain = simulate(requests, policy("ssjf"), PAPER, server, predicted)
    headroom = tuned((5.0, 0.5, 40.0, 9.0, 300.0, 0.02, 1.0))
    for begun, always in ((tuned(), headroom), (policy("due"), policy("due:9,20,60,0.02"))):
        same = simulate(requests, begun, PAPER, server, predicted, tune_every=500,
                        tune=lambda finished, now, each=always: each.score.parameters)  # fmt: skip
        fixed = simulate(requests, always, PAPER, server, predicted)
        assert (same.finished_at == fixed.finished_at).all()
    tuner = Tuner(requests, predicted, PAPER, server, Contract(), window=8000)
    done = simulate(requests, tuned(), PAPER, server, predicted, tune=tuner, tune_every=4000)
    fcfs = simulate(requests, policy("fcfs"), PAPER, server)
    after, before = (each.finished_at - requests.arrived_at for each in (done, fcfs))
    assert len(tuner.chosen) == 7 and after.mean() < before.mean()
    assert np.quantile(after, 0.99) < np.quantile(plain.finished_at - requests.arrived_at, 0.99)


def test_the_tuner_sees_nothing_of_the_future(monkeypatch):
    """Of what has not finished it knows the prediction, and of what has not come nothing."""
    requests, predicted = traffic(5000)
    shown = []
    fcfs = contract.Trial("fcfs", contract.FCFS, 0, 1, 1, True)
    monkeypatch.setattr(contract, "trials",
                        lambda recent, *rest, earlier: shown.append(recent) or [fcfs])  # fmt: skip
    tuner = Tuner(requests, predicted, PAPER, Server(slots=1), Contract())
    tuner(np.arange(1500), float(requests.arrived_at[2000]))
    (recent,) = shown
    assert len(recent) == 2000
    assert (recent.output_tokens[:1500] == requests.output_tokens[:1500]).all()
    assert (recent.output_tokens[1500:] == np.rint(predicted[1500:2000])).all()
