"""How fast the simulator and a proxy model are, on one thread."""

import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from ssjf.proxy import io as proxy_folder
from ssjf.request import Requests
from ssjf.scheduler import Policy, Queue, orderings, policy
from ssjf.simulator.profile import profile
from ssjf.simulator.server import Memory, Server
from ssjf.simulator.simulate import simulate
from ssjf.workload import synthetic

REPEATS = 15  # of a simulation, of which the fastest counts
CALLS = 50  # of a proxy, of which the median counts
SWAP = Memory("swap", host_tokens=10**8, bytes_per_token=8e5,
              out_bytes_per_second=16e9, in_bytes_per_second=16e9)  # fmt: skip
PROMPT_TOKENS = (64, 256)
BATCHES = (1, 32)
VOCABULARY = """
a about above across act add after again age air all along also among an analysis and animal answer
any area as ask at away back base be because before best better between big blue body book both
bring build business but buy by call can car care case cause change check child choose city class
clear code color come common company compare consider cost could country course create data day deal
decide describe design develop discuss do down draw drive during each early earth easy edit effect
end energy enough essay even every example explain eye face fact family far few field find first
follow food for form free friend from function game general get give go good great green group grow
hand happen hard have health hear help her high history home hour house how idea if image important
in include increase industry information input interest into is issue item job just keep kind know
"""
WORDS = VOCABULARY.split()
ONE_THREAD = {
    f"{library}_NUM_THREADS": "1"
    for library in ("OMP", "OPENBLAS", "MKL", "NUMBA", "VECLIB", "NUMEXPR")
}

Figures = dict[str, float | str]


def simulator(repeats: int = REPEATS, shrink: int = 1) -> list[Figures]:
    """Requests per second of each policy, compile time excluded, the best of several.

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
    figures = [_simulated(each, n // shrink, rho, repeats) for each, n, rho in cases]
    for slots in (8, 1):
        figures.append(_simulated(policy("ssjf"), 100_000 // shrink, 0.8, repeats, slots))
    swapping = _simulated(policy("alise"), 30_000 // shrink, 1.0, repeats, memory=SWAP)
    return [*figures, swapping]


def _plain(queue: Queue, now: float) -> np.ndarray:
    return orderings.response_ratio(queue, now)


def _simulated(
    each: Policy, n: int, rho: float, repeats: int, slots: int = 256, memory: Memory | None = None
) -> Figures:
    requests = workload(n, rho, slots=slots)
    predicted = requests.output_tokens.astype(np.float64)
    model, server = profile("illustrative-gpu"), Server(slots=slots)

    def work() -> object:
        return simulate(requests, each, model, server, predicted, memory=memory)

    work()  # compiles, and warms the caches
    gc.collect()
    seconds = min(_seconds(work) for _ in range(repeats))
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
    model = profile("illustrative-gpu")
    prompt, output = requests.prompt_tokens.mean(), requests.output_tokens.mean()
    step = model.step_seconds + slots * model.per_sequence_seconds
    step += slots * (prompt + output / 2) * model.per_context_token_seconds
    per_request = step / slots * output + model.per_prefill_token_seconds * prompt
    return requests.arriving(np.cumsum(rng.exponential(per_request / rho, n)))


def _seconds(work: Callable[..., object], *arguments: object) -> float:
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


def proxy(name: str = proxy_folder.BUILTIN, calls: int = CALLS) -> list[Figures]:
    """Speed of a proxy by prompt and batch: text in, prediction out, tokenisation included.

    Each case is measured in a process of its own, where threads and the place of compiled code
    are settled before anything is imported.

    Objects with ``proxy``, ``prompt_tokens`` (words between spaces, which tokenizers count about
    alike), ``batch``, ``ms_per_prompt`` and ``prompts_per_second`` (of the median call, each call
    on new prompts), ``rss_mb`` (most memory resident), ``load_ms`` (reading and checking the
    folder) and ``first_call_ms``, which compiles and is in no other figure.
    """
    proxy_folder.load(name)  # what is wrong with it is an error here
    return [_in_own_process(name, *case, calls) for case in product(PROMPT_TOKENS, BATCHES)]


def _in_own_process(*arguments: object) -> Any:
    with tempfile.TemporaryDirectory() as empty:
        env = os.environ | ONE_THREAD | {"NUMBA_CACHE_DIR": empty}
        command = [sys.executable, "-m", __name__, *map(str, arguments)]
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def prompts(n: int, words: int, rng: np.random.Generator) -> list[str]:
    """Prompts of so many words, drawn alike from ``WORDS``."""
    return [" ".join(row) for row in rng.choice(WORDS, (n, words))]


def _predicted(name: str, prompt_tokens: int, batch: int, calls: int) -> Figures:
    rng = np.random.default_rng(0)
    batches = [prompts(batch, prompt_tokens, rng) for _ in range(calls + 1)]
    started = time.perf_counter()
    predict = proxy_folder.load(name).predict
    load = time.perf_counter() - started
    first, *others = (_seconds(predict, each) for each in batches)
    median = statistics.median(others)
    return {
        "proxy": name,
        "prompt_tokens": prompt_tokens,
        "batch": batch,
        "ms_per_prompt": round(1e3 * median / batch, 4),
        "prompts_per_second": round(batch / median, 1),
        "rss_mb": round(_most_resident_kb() / 1024, 1),
        "load_ms": round(1e3 * load, 2),
        "first_call_ms": round(1e3 * first, 1),
    }


def _most_resident_kb() -> int:
    """On Linux of this program alone; getrusage counts there what the starting one held."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    resident = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return resident[0] if resident else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    print(json.dumps(_predicted(sys.argv[1], *map(int, sys.argv[2:]))))
