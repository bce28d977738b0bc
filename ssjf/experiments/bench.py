"""How fast the simulator is, each figure the best of several in one process."""

import gc
import resource
import time
from collections.abc import Callable

import numpy as np

from ssjf.request import Requests
from ssjf.scheduler import Policy, Queue, orderings, policy
from ssjf.simulator.profile import profile
from ssjf.simulator.server import Memory, Server
from ssjf.simulator.simulate import simulate
from ssjf.workload import synthetic

REPEATS = 15
SWAP = Memory("swap", host_tokens=10**8, bytes_per_token=8e5,
              out_bytes_per_second=16e9, in_bytes_per_second=16e9)  # fmt: skip


def simulator(repeats: int = REPEATS, shrink: int = 1) -> list[dict[str, float | str]]:
    """Requests per second of each policy, compile time excluded, one thread.

    Objects with ``policy, requests, requests_per_second, ns_per_request, peak_rss_mb``, and
    the ``setting``: log-normal lengths (means 150 and 200) at ρ 0.8 in 256, 8 or 1 slots, at ρ 1
    with preemption and swapping, or 30,000 requests at ρ 1.1. ``shrink`` divides the numbers of
    requests, for a quick look.
    """
    plain = Policy("python-function", _plain, "any")
    steady = [policy(name) for name in ("fcfs", "sjf", "ssjf", "ssjf-aged", "ssjf-bounded", "hrrn")]
    cases = [(each, 100_000, 0.8) for each in [*steady, plain]]
    cases += [(policy(name), 1_000_000, 0.8) for name in ("fcfs", "ssjf")]
    cases += [(policy(name), 30_000, 1.1) for name in ("sjf", "ssjf-bounded")]
    found = [_case(each, n // shrink, rho, repeats) for each, n, rho in cases]
    found += [_case(policy("ssjf"), 100_000 // shrink, 0.8, repeats, slots) for slots in (8, 1)]
    return [*found, _case(policy("alise"), 30_000 // shrink, 1.0, repeats, memory=SWAP)]


def _plain(queue: Queue, now: float) -> np.ndarray:
    return orderings.response_ratio(queue, now)


def _case(
    each: Policy, n: int, rho: float, repeats: int, slots: int = 256, memory: Memory | None = None
) -> dict[str, float | str]:
    requests = workload(n, rho, slots=slots)
    predicted = requests.output_tokens.astype(np.float64)
    model, server = profile("illustrative-gpu"), Server(slots=slots)
    seconds = _best(
        lambda: simulate(requests, each, model, server, predicted, memory=memory), repeats
    )
    return {
        "policy": each.name,
        "setting": f"batch {slots}, rho {rho}" + (", swap" if memory else ""),
        "requests": n,
        "requests_per_second": round(n / seconds),
        "ns_per_request": round(1e9 * seconds / n, 1),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def workload(n: int, rho: float, seed: int = 0, slots: int = 256) -> Requests:
    """Poisson arrivals at ``rho`` of what a full batch of ``slots`` gets done."""
    rng = np.random.default_rng(seed)
    requests = synthetic.requests(n, rng)
    model, batch = profile("illustrative-gpu"), slots
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
