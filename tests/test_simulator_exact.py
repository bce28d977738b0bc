"""The event-skipping simulator is the plain per-token machine, to the picosecond."""

import numpy as np
import pytest

from reference import serve
from ssjf.request import Requests
from ssjf.scheduler import Policy, Queue, orderings, policy
from ssjf.simulator.profile import PICOSECONDS, Profile
from ssjf.simulator.server import Server
from ssjf.simulator.simulate import simulate

CONFIGURATIONS = 200  # per policy, with quiet steps skipped and not: 2,800 in all


def random_profile(rng):
    return Profile(
        "random",
        step_seconds=float(rng.choice([1e-3, 0.0123, 0.02])),
        per_sequence_seconds=float(rng.choice([0, 3e-5, 1e-3])),
        per_context_token_seconds=float(rng.choice([0, 1e-6, 1e-4])),
        per_prefill_token_seconds=float(rng.choice([0, 1e-4])),
        start_up_steps=int(rng.choice([0, 0, 0, 3])),
    )


def random_server(rng, longest):
    block = int(rng.choice([1, 2, 3, 4, 16]))
    slots = int(rng.integers(1, 12))
    batching = str(rng.choice(["continuous"] * 4 + ["dynamic", "none"]))
    least = -(-longest // block) * block
    kv_tokens = None if rng.random() < 0.25 else int(least * rng.uniform(1, 3)) + block
    chunked = bool(rng.random() < 0.8)
    budget = max(slots, int(rng.integers(1, 64))) if chunked else max(slots, longest)
    return Server(
        slots,
        kv_tokens,
        block,
        budget,
        chunked,
        watermark=float(rng.choice([0.0, 0.0, 0.1])),
        batching=batching,
        fill_timeout_seconds=float(rng.choice([0.0, 0.05, 1.0])),
    )


def random_requests(rng):
    n = int(rng.integers(1, 40))
    arrived = np.sort(rng.exponential(1.0, n).cumsum() * rng.choice([0.0, 0.005, 0.05, 0.5]))
    if rng.random() < 0.3:
        arrived = np.floor(arrived * 10) / 10
    prompt = rng.integers(1, 40, n)
    output = rng.integers(1, int(rng.choice([2, 10, 60])) + 1, n)
    return Requests(arrived, prompt, output, {"p": rng.integers(1, 20, n).astype(float)})


def remaining(queue: Queue, now: float):
    """A policy that only the slowest, most general path can serve."""
    return queue.predicted_tokens - queue.generated_tokens + 0.1 * np.sin(now)


POLICIES = {
    "fcfs": policy("fcfs"),
    "ssjf": policy("ssjf"),
    "aged": policy("ssjf-aged:3"),
    "bounded": policy("ssjf-bounded:0.02"),
    "hrrn": policy("hrrn"),
    "hrrn, asked each time": Policy("hrrn", orderings.response_ratio, "any"),
    "remaining": Policy("remaining", remaining, "any"),
}


def exact_order(name, requests, ready):
    """The same policy as a key over the reference's jobs."""
    predicted, arrived = requests.predictions["p"], requests.arrived_at
    promoted = set()

    def bounded(job, now, waits):
        if waits and now >= ready[job.i] + int(0.02 * predicted[job.i] * PICOSECONDS):
            promoted.add(job.i)
        return (0, job.i) if job.i in promoted else (1, predicted[job.i], job.i)

    def ratio(job, now, waits):
        base = arrived[job.i] / predicted[job.i]
        slope = (arrived[job.i] - 1.0) / predicted[job.i] - base
        return base + slope * (now * 1e-12), job.i

    def ratio_asked(job, now, waits):
        return (arrived[job.i] - now / PICOSECONDS) / predicted[job.i], job.i

    def remains(job, now, waits):
        return predicted[job.i] - job.made + 0.1 * np.sin(now / PICOSECONDS), job.i

    return {
        "fcfs": lambda job, now, waits: job.i,
        "ssjf": lambda job, now, waits: (predicted[job.i], job.i),
        "aged": lambda job, now, waits: (predicted[job.i] + 3.0 * arrived[job.i], job.i),
        "bounded": bounded,
        "hrrn": ratio,
        "hrrn, asked each time": ratio_asked,
        "remaining": remains,
    }[name]


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize("skip", [True, False])
def test_finish_and_first_token_times_are_identical(kind, skip):
    preempted = 0
    for seed in range(CONFIGURATIONS):
        rng = np.random.default_rng([seed, skip])
        requests = random_requests(rng)
        profile = random_profile(rng)
        longest = int((requests.prompt_tokens + requests.output_tokens).max()) + 3
        server = random_server(rng, longest)
        delay = float(rng.choice([0.0, 0.0, 0.01]))
        ready = np.rint((requests.arrived_at + delay) * PICOSECONDS).astype(np.int64).tolist()
        expected = serve(
            ready, requests.prompt_tokens.tolist(), requests.output_tokens.tolist(),
            exact_order(kind, requests, ready), profile, server,
        )  # fmt: skip
        measured = simulate(
            requests, POLICIES[kind], profile, server, requests.predictions["p"], delay, skip
        )
        for name, times in zip(
            ("scheduled_at", "first_token_at", "finished_at"), expected, strict=False
        ):
            wrong = np.flatnonzero(getattr(measured, name) != np.array(times) / PICOSECONDS)
            assert not len(wrong), (seed, name, wrong, server, profile)
        assert measured.counters["preemptions"] == expected[3], seed
        preempted += expected[3]
    assert preempted > 100  # the configurations do exercise preemption
