"""How fast the simulator is, each figure the best of several in one process."""

import gc
import resource
import time
from collections.abc import Callable

import numpy as np

from ssjf.request import Requests
from ssjf.scheduler import Policy, Queue, orderings, policy
from ssjf.simulator.profile import profile
from ssjf.simulator.server import Server
from ssjf.simulator.simulate import simulate
from ssjf.workload import lengths

REPEATS = 15


def simulator(repeats: int = REPEATS, shrink: int = 1) -> list[dict[str, float | str]]:
    """Requests per second of each policy, compile time excluded, one thread.

    Objects with ``policy, requests, requests_per_second, ns_per_request, peak_rss_mb``, and
    the ``setting``: batch 256 at ρ 0.8 with log-normal lengths (means 150 and 200), or 30,000
    requests at ρ 1.1. ``shrink`` divides the numbers of requests, for a quick look.
    """
    plain = Policy("python-function", _plain, "any")
    steady = [policy(name) for name in ("fcfs", "sjf", "ssjf", "ssjf-aged", "ssjf-bounded", "hrrn")]
    cases = [(each, 100_000, 0.8) for each in [*steady, plain]]
    cases += [(policy(name), 1_000_000, 0.8) for name in ("fcfs", "ssjf")]
    cases += [(policy(name), 30_000, 1.1) for name in ("sjf", "ssjf-bounded")]
    return [_case(each, n // shrink, rho, repeats) for each, n, rho in cases]


def _plain(queue: Queue, now: float) -> np.ndarray:
    return orderings.response_ratio(queue, now)


def _case(each: Policy, n: int, rho: float, repeats: int) -> dict[str, float | str]:
    requests = workload(n, rho)
    predicted = requests.output_tokens.astype(np.float64)
    model, server = profile("illustrative-gpu"), Server(slots=256)
    seconds = _best(lambda: simulate(requests, each, model, server, predicted), repeats)
    return {
        "policy": each.name,
        "setting": f"batch 256, rho {rho}",
        "requests": n,
        "requests_per_second": round(n / seconds),
        "ns_per_request": round(1e9 * seconds / n, 1),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def workload(n: int, rho: float, seed: int = 0) -> Requests:
    """Poisson arrivals at ``rho`` of what a full batch of 256 gets done."""
    rng = np.random.default_rng(seed)
    requests = lengths.synthetic(n, rng)
    model, batch = profile("illustrative-gpu"), 256
    prompt, output = requests.prompt_tokens.mean(), requests.output_tokens.mean()
    step = model.step_seconds + batch * model.per_sequence_seconds
    step += batch * (prompt + output / 2) * model.per_context_token_seconds
    per_request = step / batch * output + model.per_prefill_token_seconds * prompt
    return requests.arriving(np.cumsum(rng.exponential(per_request / rho, n)))


def _best(work: Callable[[], object], repeats: int) -> float:
    work()  # compiles, and warms the caches
    gc.collect()
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best
