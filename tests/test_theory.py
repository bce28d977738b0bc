"""The simulator against queueing theory: formulas where they exist, laws that always hold."""

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import theory
from ssjf.analysis import metrics
from ssjf.analysis.theory import fcfs_tail, priority_waits
from ssjf.errors import InputError
from ssjf.proxy import predict
from ssjf.request import Requests
from ssjf.scheduler import Policy, policy
from ssjf.simulator.profile import Profile, profile
from ssjf.simulator.published import MODES, Quirks, duration_seconds, quirk_names, serve
from ssjf.simulator.server import Server
from ssjf.simulator.simulate import simulate
from ssjf.workload import synthetic
from ssjf.workload.synthetic import rate_for

PAPER = profile("ssjf-paper")
ONE_SLOT = Server(slots=1)
SEEDS = range(12)
N = 40_000
POOL = synthetic.lognormal(3_000, 180, 0.9, np.random.default_rng(7), high=600)
POOL_SECONDS = PAPER.alone_seconds(np.ones_like(POOL), POOL)
POOL_NOISY = POOL * np.exp(0.7 * np.random.default_rng(8).standard_normal(len(POOL)))
NO_QUIRKS = Quirks().without(quirk_names())
NON_PREEMPTIVE = ("fcfs", "sjf", "ssjf", "ssjf-aged:3", "ssjf-bounded:0.1", "hrrn")


def poisson(seed, tokens, rate, **predictions):
    rng = np.random.default_rng([seed, 99])
    arrived = np.cumsum(rng.exponential(1 / rate, len(tokens)))
    return Requests(arrived, np.ones(len(tokens)), tokens, predictions)


def from_pool(seed, rho, n=N):
    rows = np.random.default_rng(seed).integers(0, len(POOL), n)
    rate = rate_for(rho, POOL_SECONDS.mean())
    return poisson(seed, POOL[rows], rate, noisy=POOL_NOISY[rows])


def run(requests, name, model=PAPER, server=ONE_SLOT, predicted="noisy"):
    return simulate(requests, policy(name), model, server, requests.predictions.get(predicted))


def waiting(completions):
    return (completions.scheduled_at - completions.requests.arrived_at)[len(completions) // 10 :]


def assert_agrees(replicates, expected, within):
    """The mean of independent runs is the theory's, and they tell it to ``within``."""
    error = np.std(replicates, ddof=1) / np.sqrt(len(replicates))
    assert error < within * expected
    assert abs(np.mean(replicates) - expected) < 3.1 * error  # 99 % with 11 degrees of freedom


@pytest.mark.parametrize("rho", [0.5, 0.8])
def test_fcfs_is_pollaczek_khinchine(rho):
    rate = rate_for(rho, POOL_SECONDS.mean())
    expected = theory.pollaczek_khinchine(rate, POOL_SECONDS.mean(), (POOL_SECONDS**2).mean())
    found = [waiting(run(from_pool(seed, rho), "fcfs")).mean() for seed in SEEDS]
    assert_agrees(found, expected, within=0.02)


def test_the_tail_of_fcfs_is_that_of_cramer_and_lundberg():
    """M/M/1: JCT is exponential with rate μ − λ. And simulated, at the p95."""
    sample = -np.log1p(-(np.arange(200_000) + 0.5) / 200_000)
    gamma, scale = fcfs_tail(0.8, sample)
    assert gamma == pytest.approx(0.2, rel=2e-3) and scale == pytest.approx(1, rel=5e-3)
    rate = rate_for(0.8, POOL_SECONDS.mean())
    gamma, scale = fcfs_tail(rate, POOL_SECONDS)
    beyond = np.log(scale / 0.05) / gamma
    late = []
    for seed in SEEDS:
        done = run(from_pool(seed, 0.8), "fcfs")
        late.append(((done.finished_at - done.requests.arrived_at)[N // 10 :] > beyond).mean())
    assert_agrees(late, 0.05, within=0.05)


@pytest.mark.parametrize("rho", [0.5, 0.8])
@pytest.mark.parametrize(("name", "keys"), [("sjf", POOL), ("ssjf", POOL_NOISY)])
def test_shortest_first_is_the_priority_queue_of_phipps_and_cobham(name, keys, rho):
    rate = rate_for(rho, POOL_SECONDS.mean())
    waits = priority_waits(rate, POOL_SECONDS, keys)
    slowdown = (waits / POOL_SECONDS).mean()
    runs = [run(from_pool(seed, rho), name) for seed in SEEDS]
    seconds = [
        PAPER.alone_seconds(r.requests.prompt_tokens, r.requests.output_tokens) for r in runs
    ]
    assert_agrees([waiting(r).mean() for r in runs], waits.mean(), within=0.02)
    slowdowns = [(waiting(r) / s[N // 10 :]).mean() for r, s in zip(runs, seconds, strict=True)]
    assert_agrees(slowdowns, slowdown, within=0.03)


@pytest.mark.parametrize("slots", [1, 4])
def test_memoryless_service_is_m_m_c(slots):
    """Steps of a thousandth of the mean service time: nearly an exponential one."""
    model, rate = Profile("tiny steps", step_seconds=1e-3), 0.8 * slots
    expected = theory.mmc_waiting(rate, 1.0, slots)
    found = []
    for seed in SEEDS:
        tokens = np.random.default_rng(seed).geometric(1e-3, N)
        found.append(waiting(run(poisson(seed, tokens, rate), "fcfs", model, Server(slots))).mean())
    assert_agrees(found, expected, within=0.03)


def test_littles_law():
    """The mean depth of the queue is the arrival rate times the mean wait of theory."""
    rate = rate_for(0.8, POOL_SECONDS.mean())
    expected = rate * theory.sjf_waiting(rate, POOL_SECONDS)
    depth = [metrics.summarise(run(from_pool(seed, 0.8), "sjf"), np.ones(N)) for seed in SEEDS]
    assert_agrees([found["queue_depth_mean"] for found in depth], expected, within=0.02)
    assert_agrees([found["mean_running"] for found in depth], 0.8, within=0.01)


def test_the_conservation_law_and_work_conservation():
    """With one slot no order makes or loses work: sum of duration x wait, and busy time."""
    requests = from_pool(0, 0.9, 3_000)
    seconds = PAPER.alone_seconds(requests.prompt_tokens, requests.output_tokens)
    runs = [run(requests, name) for name in NON_PREEMPTIVE]
    for completions in runs:
        work = (seconds * (completions.scheduled_at - requests.arrived_at)).sum()
        first = (seconds * (runs[0].scheduled_at - requests.arrived_at)).sum()
        assert work == pytest.approx(first, rel=1e-9)
        assert completions.counters["busy_seconds"] == pytest.approx(seconds.sum(), rel=1e-12)
        assert completions.finished_at.max() == runs[0].finished_at.max()
    assert len({r.counters["busy_seconds"] for r in runs}) == 1


def test_knowing_more_waits_less():
    requests = from_pool(3, 0.8)
    sjf, ssjf, fcfs = (waiting(run(requests, name)).mean() for name in ("sjf", "ssjf", "fcfs"))
    assert sjf < ssjf < fcfs


@pytest.mark.parametrize(("spec", "twin"), [("oracle", "sjf"), ("constant", "fcfs")])
@pytest.mark.parametrize("kv_tokens", [None, 1_024])
def test_perfect_predictions_are_sjf_and_useless_ones_fcfs(spec, twin, kv_tokens):
    requests = from_pool(1, 3.0, 2_000)
    server = Server(slots=8, kv_tokens=kv_tokens)
    predicted = predict(spec, requests, np.random.default_rng(0))
    found = simulate(requests, policy("ssjf"), PAPER, server, predicted)
    expected = simulate(requests, policy(twin), PAPER, server)
    assert (found.finished_at == expected.finished_at).all()
    assert (found.preemptions == expected.preemptions).all()
    if kv_tokens:
        assert expected.preemptions.sum() > 0  # or the memory binds nothing


@pytest.mark.parametrize("name", ["fcfs", "sjf", "ssjf"])
def test_the_published_protocol_without_quirks_is_the_simulator(name):
    requests = from_pool(2, 0.95, 3_000)
    predicted = np.rint(requests.predictions["noisy"])
    published = serve(requests, name, "none", predicted=predicted, quirks=NO_QUIRKS)
    simulated = simulate(requests, policy(name), PAPER, ONE_SLOT, predicted)
    assert np.abs(published.finished_at - simulated.finished_at).max() < 1e-6


def non_preemptive(arrived, seconds, keys, slots):
    """The textbook M/G/c by event: when a server is free, the lowest key that has arrived."""
    waiting, free, i = [], [0] * slots, 0
    finished = [0] * len(arrived)
    while i < len(arrived) or waiting:
        now = free[0] if waiting else max(free[0], arrived[i])
        while i < len(arrived) and arrived[i] <= now:
            heapq.heappush(waiting, (keys[i], i))
            i += 1
        _, job = heapq.heappop(waiting)
        finished[job] = now + seconds[job]
        heapq.heapreplace(free, finished[job])
    return np.array(finished)


@pytest.mark.parametrize("slots", [1, 2, 5])
@pytest.mark.parametrize("name", ["fcfs", "sjf", "ssjf"])
def test_the_published_protocol_without_quirks_is_the_m_g_c_queue(name, slots):
    requests = from_pool(slots, 0.9 * slots, 3_000)
    predicted = np.rint(requests.predictions["noisy"])
    keys = {"fcfs": np.zeros(3_000), "sjf": requests.output_tokens, "ssjf": predicted}[name]
    ticks = [
        np.rint(seconds * 1e9).astype(int).tolist()
        for seconds in (requests.arrived_at, duration_seconds(requests.output_tokens))
    ]
    expected = non_preemptive(*ticks, keys.tolist(), slots) / 1e9
    found = serve(requests, name, "continuous", slots, predicted, quirks=NO_QUIRKS)
    assert np.abs(found.finished_at - expected).max() < 1e-6


@pytest.mark.parametrize("mode", MODES)
def test_the_published_protocol_without_quirks_loses_nothing(mode):
    requests = from_pool(4, 2.0, 200)
    for name in ("fcfs", "sjf", "ssjf"):
        done = serve(requests, name, mode, 2, requests.predictions["noisy"], quirks=NO_QUIRKS)
        assert np.isfinite(done.finished_at).all()


WORKLOADS = st.lists(
    st.tuples(st.integers(0, 2_000), st.integers(1, 60), st.integers(1, 80)),
    min_size=1,
    max_size=40,
).map(lambda rows: [np.array(column) for column in zip(*rows, strict=True)])
"""Gaps in whole milliseconds, prompt and output tokens."""


def of_columns(gaps, prompt, output):
    return Requests(np.cumsum(gaps) / 1000, prompt, output, {"noisy": output % 7 + 1.0})


@settings(deadline=None, max_examples=50)
@given(WORKLOADS, st.sampled_from([0.5, 3.0, 40.0]), st.booleans())
def test_a_static_ageing_key_is_ageing_by_waiting_time(columns, rate, short_of_memory):
    rng = np.random.default_rng(0)
    requests = of_columns(*columns)
    # Times off any grid: two scores that tie on paper may round apart.
    requests = requests.arriving(np.sort(requests.arrived_at + rng.random(len(requests))))

    def by_waiting_time(queue, now):
        return queue.predicted_tokens - rate * (now - queue.arrived_at)

    server = Server(slots=3, kv_tokens=160 if short_of_memory else None)
    predicted = requests.predictions["noisy"]
    static = simulate(requests, policy(f"ssjf-aged:{rate}"), PAPER, server, predicted)
    dynamic = simulate(requests, Policy("ageing", by_waiting_time), PAPER, server, predicted)
    assert (static.finished_at == dynamic.finished_at).all()
    assert (static.scheduled_at == dynamic.scheduled_at).all()


@settings(deadline=None, max_examples=50)
@given(WORKLOADS, st.sampled_from(["fcfs", "sjf", "ssjf"]), st.sampled_from([1, 3]))
def test_a_machine_twice_as_slow_at_half_the_rate_is_the_same(columns, name, slots):
    requests = of_columns(*columns)
    slower = requests.arriving(2 * requests.arrived_at)
    model = Profile("one", 0.02, 1e-3, 1e-6, 1e-4, start_up_steps=2)
    twice = Profile("two", 0.04, 2e-3, 2e-6, 2e-4, start_up_steps=2)
    found = run(slower, name, twice, Server(slots, kv_tokens=256))
    expected = run(requests, name, model, Server(slots, kv_tokens=256))
    assert (found.finished_at == 2 * expected.finished_at).all()


@settings(deadline=None, max_examples=50)
@given(WORKLOADS, st.integers(1, 30), st.integers(0, 39))
def test_fcfs_on_one_slot_is_monotone(columns, more, which):
    """One longer answer, or a slower machine, makes nobody finish earlier (Lindley)."""
    requests = of_columns(*columns)
    longer = requests.output_tokens.copy()
    longer[which % len(longer)] += more
    base = run(requests, "fcfs").finished_at
    later = Requests(requests.arrived_at, requests.prompt_tokens, longer)
    assert (run(later, "fcfs").finished_at >= base).all()
    assert (
        run(requests, "fcfs", Profile("slow", 0.021, start_up_steps=5)).finished_at > base
    ).all()


DURATIONS = st.lists(st.floats(0.01, 50), min_size=1, max_size=30).map(np.array)


@settings(deadline=None)
@given(DURATIONS, st.floats(0.05, 0.95), st.integers(0, 99))
def test_formulas_keep_the_conservation_law_whatever_the_keys(durations, rho, seed):
    rate = rate_for(rho, durations.mean())
    fcfs = theory.pollaczek_khinchine(rate, durations.mean(), (durations**2).mean())
    keys = np.random.default_rng(seed).integers(0, 5, len(durations))
    waits = priority_waits(rate, durations, keys)
    assert (durations * waits).mean() == pytest.approx(durations.mean() * fcfs)
    assert theory.sjf_waiting(rate, durations) <= waits.mean() * (1 + 1e-9)
    assert priority_waits(rate, durations, 0 * keys) == pytest.approx(fcfs)


@settings(deadline=None)
@given(st.floats(0.05, 0.95), st.floats(0.1, 10))
def test_formulas_agree_where_they_meet(rho, mean):
    rate = rate_for(rho, mean)
    assert theory.utilisation(rate, mean) == pytest.approx(rho)
    assert theory.erlang_c(rate, mean, 1) == pytest.approx(rho)
    memoryless = theory.pollaczek_khinchine(rate, mean, 2 * mean**2)
    assert theory.mmc_waiting(rate, mean, 1) == pytest.approx(memoryless)


def test_erlang_c_by_hand_and_for_many_slots():
    assert theory.erlang_c(1.0, 1.0, 2) == pytest.approx(1 / 3)  # 2 rho^2 / (1 + rho), rho = 1/2
    assert 0 < theory.erlang_c(990, 1.0, 1000) < 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: theory.pollaczek_khinchine(0.3, 1.1 / 0.3, 20),
            "rho is 1.10 at 0.3 requests/s; a steady state needs a rate below 0.272",
        ),
        (lambda: theory.sjf_waiting(2, [1.0]), "rho is 2.00 at 2 requests/s; .* below 1"),
        (lambda: theory.erlang_c(4, 1.0, 4), "rho is 1.00 at 4 requests/s; .* below 4"),
        (lambda: theory.mmc_waiting(1, 1.0, 0), "slots is 0"),
        (lambda: theory.utilisation(-1, 1.0), "rate is -1"),
        (lambda: rate_for(0.5, 0), "mean_seconds is 0"),
        (lambda: theory.sjf_waiting(1, []), "durations must be"),
        (lambda: theory.sjf_waiting(1, [0.1, np.nan]), "durations must be"),
        (lambda: priority_waits(1, [0.1], [1, 2]), "2 keys were given for 1 durations"),
    ],
)
def test_no_steady_state_and_bad_numbers_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
