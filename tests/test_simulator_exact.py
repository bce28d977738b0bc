"""The simulator is the plain per-token machine, to the picosecond, and keeps its laws."""

import itertools
import math
import os
from dataclasses import replace

import numpy as np
import pytest

from reference import Machine
from ssjf.request import Requests
from ssjf.scheduler import Policy, Queue, orderings, policy
from ssjf.scheduler.alise import TOKENS, alise
from ssjf.simulator.core.setting import time_model
from ssjf.simulator.profile import PICOSECONDS, Profile
from ssjf.simulator.server import ON_PREEMPTION, Memory, Server
from ssjf.simulator.simulate import simulate

CONFIGURATIONS = int(os.environ.get("SSJF_FUZZ", "2"))
"""Of each policy, memory policy and quantisation; with SSJF_FUZZ=30 it takes minutes."""
QUANTISE = (None, 8, 4)
LEVELS = (0.02, 0.1, 0.5)


def random_profile(rng):
    return Profile(
        "random",
        step_seconds=float(rng.choice([1e-3, 0.0123, 0.02])),
        per_sequence_seconds=float(rng.choice([0, 3e-5, 1e-3])),
        per_context_token_seconds=float(rng.choice([0, 1e-6, 1e-4])),
        per_prefill_token_seconds=float(rng.choice([0, 1e-4])),
        start_up_steps=int(rng.choice([0, 0, 0, 3])),
    )


def remaining(queue: Queue, now: float):
    """A policy that only the slowest, most general path can serve."""
    return queue.predicted_tokens - queue.generated_tokens + 0.1 * np.sin(now)


class Order:
    """A policy in plain words; ``seconds`` is the time model of the machine, for EWT."""

    def __init__(
        self, requests, ready, profile, score, growth=True, aged=None, bound=None, victims=None
    ):
        self.predicted, self.arrived = requests.predictions["p"], requests.arrived_at
        self.ready, self.lead, self.model = ready, profile.start_up_steps, time_model(profile)
        self._score, self.growth, self.aged, self.bound = score, growth, aged, bound
        self._victims = victims

    def estimate(self, job):
        total = max(self.predicted[job.i], 1.0) + self.lead
        while total <= job.made:
            total *= 2
        return total

    def seconds(self, job, model=None):
        model, left, known = model or self.model, self.estimate(job) - job.made, job.prompt
        if self.growth:
            read = left * (known + job.made) + left * (left - 1) / 2
            decode = model.context_token_seconds * read + model.token_seconds * left
        else:
            decode = left * (model.context_token_seconds * known + model.token_seconds)
        return decode + (model.prefill_token_seconds * known if job.made == 0 else 0.0)

    def level(self, job):
        return sum(edge <= self.seconds(job) for edge in LEVELS)

    def age(self, job, now):
        return max(float(now) / 1e12 - self.arrived[job.i], 0.0)

    def promote(self, job, now):
        if self.bound and now >= self.promote_at(job):
            job.promoted = True

    def promote_at(self, job):
        return self.ready[job.i] + int(self.bound * self.predicted[job.i] * PICOSECONDS)

    def score(self, job, now):
        if self.aged:
            return max(self.level(job) - math.floor(self.age(job, now) / self.aged), 0)
        return -math.inf if job.promoted else self._score(self, job, now)

    def victim(self, job, now):
        return self._victims(self, job, now) if self._victims else self.score(job, now)

    def most_seconds(self, job, now):
        if self.bound:
            return 0.0 if job.promoted else (self.promote_at(job) - now) / 1e12
        if self.aged and self.aged < math.inf:
            return max(self.level(job) * self.aged - self.age(job, now), 0.0)
        return math.inf


def sjf(order, job, now):
    return order.predicted[job.i]


def tokens_left(order, job, now):
    return order.seconds(job, TOKENS)


def ratio(order, job, now):
    base = order.arrived[job.i] / order.predicted[job.i]
    slope = (order.arrived[job.i] - 1.0) / order.predicted[job.i] - base
    return base + slope * (now * 1e-12)


def ratio_asked(order, job, now):
    return (order.arrived[job.i] - now / PICOSECONDS) / order.predicted[job.i]


def aged(order, job, now):
    return order.predicted[job.i] + 3.0 * order.arrived[job.i]


def asked(order, job, now):
    return order.predicted[job.i] - job.made + 0.1 * np.sin(np.float64(now) / PICOSECONDS)


def beyond(order, job):
    return job.made > 0.3 * order.predicted[job.i]


def trail_waits(order, job, now):
    return 1e15 if beyond(order, job) else order.predicted[job.i] - job.made


def trail_runs(order, job, now):
    return -1e15 if beyond(order, job) else order.predicted[job.i] - job.made


ALISE = {"boundaries": LEVELS, "promotion_seconds": 0.3}
KINDS = {
    "fcfs": (policy("fcfs"), lambda order, job, now: order.arrived[job.i], {}),
    "ssjf": (policy("ssjf"), sjf, {}),
    "aged": (policy("ssjf-aged:3"), aged, {}),
    "bounded": (policy("ssjf-bounded:0.02"), sjf, {"bound": 0.02}),
    "hrrn": (policy("hrrn"), ratio, {}),
    "hrrn, asked": (Policy("hrrn", orderings.response_ratio), ratio_asked, {}),
    "asked": (Policy("asked", remaining), asked, {}),
    "ssjf, preemptive": (
        Policy("ssjf", orderings.shortest_predicted, "constant", preempts=True), sjf, {},
    ),
    "bounded, preemptive": (
        replace(policy("ssjf-bounded:0.02"), preempts=True), sjf, {"bound": 0.02},
    ),
    "hrrn, preemptive": (
        Policy("hrrn", orderings.response_ratio, "linear", preempts=True), ratio, {},
    ),
    "asked, preemptive": (Policy("asked", remaining, preempts=True), asked, {}),
    "trail": (policy("trail:0.3"), trail_waits, {"victims": trail_runs}),
    "trail, never preempting": (
        replace(policy("trail:0.3"), preempts=False), trail_waits, {"victims": trail_runs},
    ),
    "trail, first": (policy("trail-first:0.3"), trail_runs, {}),
    "ssrpt": (policy("ssrpt"), tokens_left, {"growth": False}),
    "alise": (alise(**ALISE), None, {"aged": 0.3, "growth": False}),
    "alise with context": (alise(**ALISE, context_growth=True), None, {"aged": 0.3}),
}  # fmt: skip


def crowd(rng):
    """More than a server can serve as it comes, lengths far apart."""
    n = int(rng.integers(10, 36))
    arrived = rng.exponential(1.0, n).cumsum() * rng.choice([0.0, 0.005, 0.05])
    output = np.where(rng.random(n) < 0.5, rng.integers(1, 8, n), rng.integers(8, 50, n))
    predicted = np.maximum(output * rng.choice([0.3, 1.0, 2.0], n), 1.0)
    return Requests(arrived, rng.integers(1, 40, n), output, {"p": predicted})


def random_server(rng, longest):
    block = int(rng.choice([1, 2, 3, 4, 16]))
    slots = int(rng.integers(1, 8))
    least = -(-longest // block) * block
    kv_tokens = None if rng.random() < 0.1 else int(least * rng.uniform(1, 2)) + block
    chunked = bool(rng.random() < 0.8)
    budget = max(slots, int(rng.integers(1, 64))) if chunked else max(slots, longest)
    watermark = float(rng.choice([0.0, 0.0, 0.1]))
    vllm = str(rng.choice(["0.32", "0.33"]))
    return Server(slots, kv_tokens, block, budget, chunked, watermark, vllm)


def random_memory(rng, on_preemption, quantise, longest):
    host = int((longest + 16) * rng.choice([1.0, 1.0, 1.2, 10.0])) // (
        16 // quantise if quantise else 1
    )
    return Memory(
        on_preemption,
        host_tokens=host + 16,
        out_bytes_per_second=float(rng.choice([1e3, 1e5, math.inf])),
        in_bytes_per_second=float(rng.choice([1e3, 1e5, math.inf])),
        overlap=bool(rng.random() < 0.8),
        latency_seconds=float(rng.choice([0.0, 1e-3, 0.1])),
        bytes_per_token=float(rng.choice([0.0, 1.0, 100.0])),
        quantise=quantise,
        quantise_seconds_per_token=float(rng.choice([0.0, 1e-4])),
        spare_share=float(rng.choice([0.0, 0.1, 0.5])),
        ahead_seconds=float(rng.choice([0.0, 0.01, 0.3])),
        **random_reserve(rng, longest),
    )


def random_reserve(rng, longest):
    kind = str(rng.choice(["none", "none", "none", "maximum", "true"]))
    return {"reserve": kind, "maximum_tokens": longest if kind == "maximum" else None}


def case(seed, kind, on_preemption, quantise):
    rng = np.random.default_rng([seed, ON_PREEMPTION.index(on_preemption), quantise or 0])
    requests, profile = crowd(rng), random_profile(rng)
    longest = int((requests.prompt_tokens + requests.output_tokens).max()) + 3
    server = random_server(rng, longest)
    memory = random_memory(rng, on_preemption, quantise, longest)
    delay = float(rng.choice([0.0, 0.0, 0.01]))
    ready = np.rint((requests.arrived_at + delay) * PICOSECONDS).astype(np.int64).tolist()
    chosen, score, options = KINDS[kind]
    order = Order(requests, ready, profile, score, **options)
    plain = Machine(
        ready, requests.prompt_tokens.tolist(), requests.output_tokens.tolist(), order,
        chosen.preempts, profile, server, memory,
    ).serve()  # fmt: skip
    jump = bool(rng.random() < 0.5)
    found = simulate(
        requests, chosen, profile, server, requests.predictions["p"], delay, memory, jump
    )
    return plain, found


def assert_same(plain, found, seed):
    columns = {"scheduled_at": "scheduled", "first_token_at": "first", "finished_at": "finished",
               "swapped_seconds": "swapped"}  # fmt: skip
    for ours, theirs in columns.items():
        expected = np.array([getattr(job, theirs) for job in plain.jobs]) / PICOSECONDS
        assert (getattr(found, ours) == expected).all(), (seed, ours)
    assert found.preemptions.tolist() == [job.preempted for job in plain.jobs], seed
    expected = {
        **{name: plain.counts[name] for name in COUNTED},
        "swapped_out_tokens": plain.out.tokens,
        "swapped_in_tokens": plain.back.tokens,
        "busy_seconds": plain.counts["busy"] / PICOSECONDS,
        "stall_seconds": plain.counts["stalled"] / PICOSECONDS,
        "link_out_busy_seconds": sum(b - a for a, b in plain.out.spans) / PICOSECONDS,
        "link_in_busy_seconds": sum(b - a for a, b in plain.back.spans) / PICOSECONDS,
    }
    assert {name: found.counters[name] for name in expected} == expected, seed


COUNTED = ("steps", "preemptions", "swaps_out", "swaps_in", "offloads_ahead", "uploads_ahead",
           "recomputed_tokens", "dropped_for_full_host")  # fmt: skip


def assert_laws(plain, found):
    """Everything given back, every token computed once and where dropped again, one copy at a
    time, and no time unaccounted for."""
    assert plain.free() == plain.server.blocks and plain.host_free() == plain.host_blocks
    once = sum(job.prompt + job.total - 1 for job in plain.jobs)
    assert plain.computed == once + plain.counts["recomputed_tokens"]
    assert plain.out.tokens == plain.back.tokens  # what left came back
    for link in (plain.out, plain.back):
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(link.spans))
        spent = len(link.spans) * link.latency + link.tokens * link.per_token
        assert spent == sum(end - start for start, end in link.spans)
    counts = plain.counts
    assert plain.now == counts["busy"] + counts["stalled"] + counts["idle"]
    assert found.counters["most_kv_blocks"] <= plain.server.blocks
    assert found.counters["most_host_blocks"] <= plain.host_blocks


@pytest.mark.parametrize("on_preemption", ON_PREEMPTION)
def test_all_times_and_counters_are_identical(on_preemption):
    totals = dict.fromkeys((*COUNTED, "stall_seconds"), 0.0)
    for kind, quantise, seed in itertools.product(KINDS, QUANTISE, range(CONFIGURATIONS)):
        plain, found = case(seed, kind, on_preemption, quantise)
        assert_same(plain, found, (kind, quantise, seed))
        assert_laws(plain, found)
        for name in totals:
            totals[name] += found.counters[name]
    # the configurations do exercise what they should
    assert totals["preemptions"] > 100 * CONFIGURATIONS / 4
    if on_preemption in ("swap", "ewt"):
        assert min(totals["swaps_out"], totals["swaps_in"]) > 100
        assert min(totals["dropped_for_full_host"], totals["stall_seconds"]) > 0
    else:
        assert totals["swaps_out"] == totals["stall_seconds"] == 0
    if on_preemption == "ewt":
        assert min(totals["uploads_ahead"], totals["offloads_ahead"]) > 0


@pytest.mark.parametrize("growth", [False, True])
@pytest.mark.parametrize("on_preemption", ON_PREEMPTION)
def test_the_compiled_order_is_the_policys_own_function(on_preemption, growth):
    """ALISE, and the same function asked anew at every step."""
    for seed in range(5 * CONFIGURATIONS):
        rng = np.random.default_rng([seed, 55])
        requests, profile = crowd(rng), replace(random_profile(rng), start_up_steps=0)
        longest = int((requests.prompt_tokens + requests.output_tokens).max())
        server = random_server(rng, longest)
        memory = random_memory(rng, on_preemption, None, longest)
        native = alise(**ALISE, context_growth=growth)
        score = replace(native.score, time=time_model(profile))
        asked = Policy("asked", lambda queue, now, score=score: score(queue, now), preempts=True)
        if on_preemption == "ewt":  # where ageing caps a wait; a plain function tells nothing
            memory = replace(memory, ahead_seconds=100.0, spare_share=0.0)
        given = (profile, server, requests.predictions["p"], 0.0, memory)
        one, other = (simulate(requests, each, *given) for each in (native, asked))
        assert (one.finished_at == other.finished_at).all(), seed
        assert one.counters == other.counters, seed
