"""Preemption, swapping and reservation against theory, and against times found by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssjf.request import Requests
from ssjf.scheduler import known_policies, policy
from ssjf.scheduler.alise import alise
from ssjf.simulator.profile import Profile
from ssjf.simulator.server import Memory, Server
from ssjf.simulator.simulate import simulate
from ssjf.workload import synthetic
from ssjf.workload.synthetic import rate_for
from test_theory import WORKLOADS, assert_agrees, of_columns

STEP = Profile("a step a token", step_seconds=0.01)
ONE_SLOT = Server(slots=1)
SWAP = Memory("swap", host_tokens=2**30)
N = 8_000


def jct(done):
    return done.finished_at - done.requests.arrived_at


def srpt_jct(rate, durations):
    """Mean time in M/G/1 under SRPT, of jobs drawn from ``durations`` (s).

    For a job of size x: rate (E[S^2; S <= x] + x^2 P(S > x)) / (2 (1 - rho_{<x})(1 - rho_{<=x}))
    waiting, and the integral of dt / (1 - rho_{<=t}) from 0 to x in service. Source: Schrage and
    Miller 1966 (Operations Research 14:670).
    """
    sizes, counts = np.unique(durations, return_counts=True)
    share = counts / counts.sum()
    load = np.cumsum(rate * sizes * share)
    below = load - rate * sizes * share
    second = np.cumsum(sizes**2 * share) + sizes**2 * (1 - np.cumsum(share))
    waits = rate * second / (2 * (1 - below) * (1 - load))
    served = np.cumsum(np.diff(sizes, prepend=0.0) / (1 - below))
    return float(((waits + served) * share).sum())


@pytest.mark.parametrize("rho", [0.5, 0.8])
def test_srpt_is_schrage_and_miller(rho):
    """On one slot, with no cost of preemption: KV stays where it is."""
    pool = synthetic.lognormal(2_000, 200, 0.9, np.random.default_rng(7), high=1_500)
    rate = rate_for(rho, 0.01 * pool.mean())
    found = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        arrived = np.cumsum(rng.exponential(1 / rate, N))
        requests = Requests(arrived, np.ones(N), rng.choice(pool, N))
        done = simulate(requests, policy("srpt"), STEP, ONE_SLOT, memory=SWAP)
        assert done.counters["swaps_out"] == 0 < done.counters["preemptions"]
        found.append(jct(done)[N // 10 :].mean())
    assert_agrees(found, srpt_jct(rate, 0.01 * pool), within=0.03)


@settings(deadline=None, max_examples=40)
@given(WORKLOADS)
def test_no_order_beats_srpt_on_one_slot(columns):
    """Schrage 1968; and no order makes or loses work."""
    requests = of_columns(*columns)
    runs = {
        name: simulate(
            requests, policy(name), STEP, ONE_SLOT, requests.predictions["noisy"], memory=SWAP
        )
        for name in known_policies()
    }
    best = jct(runs["srpt"]).mean()
    for done in runs.values():
        assert best <= jct(done).mean() + 1e-9
        assert done.finished_at.max() == runs["fcfs"].finished_at.max()
        assert done.counters["busy_seconds"] == runs["fcfs"].counters["busy_seconds"]


@settings(deadline=None, max_examples=40)
@given(WORKLOADS, st.sampled_from([0.05, 0.3]), st.sampled_from([1, 3]))
def test_nobody_younger_goes_before_one_that_has_aged_to_the_top(columns, seconds, slots):
    """From then on it waits only for those that came before it."""
    requests = of_columns(*columns)
    boundaries = (0.05, 0.2, 0.4)
    done = simulate(
        requests, alise(seconds, boundaries), STEP, Server(slots), requests.predictions["noisy"],
        memory=SWAP,
    )  # fmt: skip
    top = requests.arrived_at + len(boundaries) * seconds
    assert overtaken_after(top, done) == 0


def overtaken_after(time, done):
    """Pairs in which the younger starts while the older, past its ``time``, waits."""
    first = done.scheduled_at
    return sum(
        int(((first[i + 1 :] > time[i] + 1e-9) & (first[i + 1 :] < first[i])).sum())
        for i in range(len(first))
    )


def crowd(seed, n=300):
    rng = np.random.default_rng(seed)
    output = np.ceil(rng.lognormal(3.0, 1.2, n)).clip(max=800).astype(int)
    return Requests(np.cumsum(rng.exponential(0.25, n)), rng.integers(1, 40, n), output)


def test_without_ageing_the_long_starve():
    """What the test above holds would not hold of itself; and ageing bounds the longest wait."""
    requests = crowd(1)
    predicted = requests.output_tokens.astype(float)
    waits = {}
    for seconds in (1.0, math.inf):
        done = simulate(requests, alise(seconds), STEP, ONE_SLOT, predicted, memory=SWAP)
        waits[seconds] = (done.scheduled_at - requests.arrived_at).max()
        starved = overtaken_after(requests.arrived_at + 7 * seconds, done) if seconds == 1 else 0
        assert starved == 0
    assert waits[1.0] < waits[math.inf]
    assert overtaken_after(requests.arrived_at + 7.0, done) > 0


def test_a_request_that_outlives_its_prediction_gives_way():
    """One long answer predicted short, then many short ones: it must not stay almost done."""
    output = np.array([2_000, *[10] * 50])
    requests = Requests(np.arange(51) * 0.2, np.ones(51), output)
    predicted = np.array([5.0, *[10.0] * 50])
    done = simulate(requests, policy("ssrpt"), STEP, ONE_SLOT, predicted, memory=SWAP)
    assert jct(done)[1:].max() < 0.5  # the long one stands behind after 20 tokens
    assert jct(simulate(requests, policy("ssjf"), STEP, ONE_SLOT, predicted))[1:].min() > 5


TWO = Requests([0.0, 2.5], [10, 10], [5, 1])
BY_HAND = Profile("by hand", step_seconds=1.0, per_prefill_token_seconds=0.1)
COPY = {"host_tokens": 14, "out_bytes_per_second": 10, "in_bytes_per_second": 5,
        "bytes_per_token": 1}  # fmt: skip


@pytest.mark.parametrize(
    ("memory", "kv_tokens", "finished", "counters"),
    [
        # A computes 11 tokens by 3 s, then B its 10 + 1, then A the 12 again or its 12th.
        (Memory(), None, (9.2, 5.0), {"recomputed_tokens": 11, "stall_seconds": 0}),
        (Memory("swap", **COPY), None, (8.0, 5.0), {"swaps_out": 0}),
        # Blocks for 16: A has to go first, 11 tokens at 10/s, and comes back at 5/s.
        (Memory("swap", **COPY), 16, (11.3, 6.1), {"stall_seconds": 3.3, "swaps_in": 1}),
        (Memory("swap", quantise=8, **COPY), 16, (9.65, 5.55), {"stall_seconds": 1.65}),
        (Memory("swap", quantise=4, **COPY), 16, (8.825, 5.275), {"stall_seconds": 0.825}),
        (Memory("swap", latency_seconds=0.5, **COPY), 16, (12.3, 6.6), {"stall_seconds": 4.3}),
        (
            Memory("swap", quantise=8, quantise_seconds_per_token=0.01, **COPY),
            16, (9.87, 5.66), {"link_in_busy_seconds": 1.21, "link_out_busy_seconds": 0.66},
        ),
        # Nobody gives way.
        (Memory("defer"), None, (6.0, 8.0), {"preemptions": 0}),
        # Both would fit, but not with what they may grow to.
        (Memory("defer", reserve="true"), 20, (6.0, 8.0), {"most_kv_blocks": 14}),
    ],
)  # fmt: skip
def test_times_by_hand(memory, kv_tokens, finished, counters):
    server = Server(slots=1, kv_tokens=kv_tokens, block_tokens=1)
    done = simulate(TWO, policy("srpt"), BY_HAND, server, memory=memory)
    assert done.finished_at == pytest.approx(finished)
    for name, value in counters.items():
        assert done.counters[name] == pytest.approx(value), name


def test_copies_overlap_with_compute_or_do_not():
    """The second computes while the first is on its way out for the third."""
    three = Requests([0.0, 0.0, 2.5], [10, 2, 10], [5, 20, 1])
    server = Server(slots=2, kv_tokens=22, block_tokens=1)
    runs = {}
    for overlap in (True, False):
        memory = replace(Memory("swap", **COPY), overlap=overlap, host_tokens=100)
        runs[overlap] = simulate(three, policy("ssrpt"), BY_HAND, server,
                                 np.array([5.0, 4.0, 1.0]), memory=memory)  # fmt: skip
    assert runs[True].counters["stall_seconds"] < runs[False].counters["stall_seconds"]
    assert runs[True].finished_at.max() < runs[False].finished_at.max()


def test_reservations_never_preempt_and_admit_fewer():
    """ORCA: with the maximum reserved fewest run, with the true length more, with blocks most."""
    requests = crowd(2, 150).arriving(np.zeros(150))
    server = Server(slots=64, kv_tokens=4_096)
    runs = {
        "maximum": Memory(reserve="maximum", maximum_tokens=1_024),
        "true": Memory(reserve="true"),
        "none": Memory(),
    }
    done = {
        name: simulate(requests, policy("fcfs"), STEP, server, memory=memory)
        for name, memory in runs.items()
    }
    assert done["maximum"].counters["preemptions"] == done["true"].counters["preemptions"] == 0
    seconds = [done[name].counters["busy_seconds"] for name in ("maximum", "true", "none")]
    assert seconds[0] > seconds[1] >= seconds[2]


@pytest.mark.parametrize("name", ["srpt", "alise:5", "fcfs"])
def test_a_free_link_is_no_worse_than_computing_again(name):
    """Recomputation costs its prefill and gains nothing that swapping for nothing does not."""
    model = replace(STEP, per_prefill_token_seconds=1e-3)
    server = Server(slots=32, kv_tokens=1_024)
    for seed in range(5):
        requests = crowd(seed)
        requests = requests.arriving(requests.arrived_at / 10)
        predicted = requests.output_tokens.astype(float)
        again, swapped = (
            simulate(requests, policy(name), model, server, predicted, memory=memory)
            for memory in (Memory(), SWAP)
        )
        assert again.counters["recomputed_tokens"] > 0 == swapped.counters["recomputed_tokens"]
        assert jct(swapped).mean() <= jct(again).mean()


def test_a_host_without_end_and_quantisation_change_what_is_dropped():
    """Half the size on the host: no more requests find it full."""
    requests = crowd(3).arriving(np.zeros(300))
    server = Server(slots=16, kv_tokens=2_048)
    dropped = []
    for host, bits in ((2_048, None), (2_048, 8), (2_048, 4), (2**30, None)):
        memory = Memory("swap", host_tokens=host, quantise=bits)
        done = simulate(requests, policy("ssrpt"), STEP, server, np.full(300, 20.0),
                        memory=memory)  # fmt: skip
        dropped.append(done.counters["dropped_for_full_host"])
        assert done.counters["most_host_blocks"] <= memory.host_capacity_tokens // 16
    assert dropped == sorted(dropped, reverse=True) and dropped[-1] == 0


@settings(deadline=None, max_examples=30)
@given(WORKLOADS, st.sampled_from(["fcfs", "alise:0.5", "srpt"]))
def test_a_machine_twice_as_slow_at_half_the_rate_is_the_same(columns, name):
    requests = of_columns(*columns)
    predicted, server = requests.predictions["noisy"], Server(3, kv_tokens=256)
    model = Profile("one", 0.02, 1e-3, 1e-6, 1e-4, start_up_steps=2)
    twice = Profile("two", 0.04, 2e-3, 2e-6, 2e-4, start_up_steps=2)
    chosen = policy(name)
    if name.startswith("alise"):
        slower = alise(1.0, [2 * edge for edge in chosen.score.boundaries])
    else:
        slower = chosen
    memory = Memory("swap", host_tokens=256, out_bytes_per_second=1e3, in_bytes_per_second=2e3,
                    bytes_per_token=1, latency_seconds=1e-3)  # fmt: skip
    slow_link = replace(memory, out_bytes_per_second=5e2, in_bytes_per_second=1e3,
                        latency_seconds=2e-3)  # fmt: skip
    base = simulate(requests, chosen, model, server, predicted, memory=memory)
    found = simulate(
        requests.arriving(2 * requests.arrived_at), slower, twice, server, predicted,
        memory=slow_link,
    )  # fmt: skip
    assert (found.finished_at == 2 * base.finished_at).all()
    assert (found.swapped_seconds == 2 * base.swapped_seconds).all()
