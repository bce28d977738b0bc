"""Speed and memory of a proxy on one thread, as recorded by `ssjf run proxy-cost`."""

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

CALLS = 50  # the median is reported
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


def _seconds(work: Callable[..., object], *arguments: object) -> float:
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


def proxy(name: str, calls: int = CALLS) -> list[Figures]:
    """Measure a proxy by prompt length and batch size, from text to prediction.

    Each case runs in its own process, whose threads and compilation cache are set before imports.

    Returns objects with ``prompt_tokens`` (words between spaces), ``batch``, ``ms_per_prompt`` and
    ``prompts_per_second`` (of the median call, each on new prompts), ``rss_mb`` (peak resident
    memory), ``load_ms`` (reading and checking the folder) and ``first_call_ms``, which includes
    compilation and counts in no other number.
    """
    proxy_folder.load(name)  # a broken proxy is reported here
    return [_in_own_process(name, *case, calls) for case in product(PROMPT_TOKENS, BATCHES)]


def _in_own_process(*arguments: object) -> Any:
    with tempfile.TemporaryDirectory() as empty:
        env = os.environ | ONE_THREAD | {"NUMBA_CACHE_DIR": empty}
        command = [sys.executable, "-m", __name__, *map(str, arguments)]
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def prompts(n: int, words: int, rng: np.random.Generator) -> list[str]:
    """Draw n prompts of ``words`` words from ``WORDS``."""
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
        "prompt_tokens": prompt_tokens,
        "batch": batch,
        "ms_per_prompt": round(1e3 * median / batch, 4),
        "prompts_per_second": round(batch / median, 1),
        "rss_mb": round(_most_resident_kb() / 1024, 1),
        "load_ms": round(1e3 * load, 2),
        "first_call_ms": round(1e3 * first, 1),
    }


def _most_resident_kb() -> int:
    """Peak memory; on Linux getrusage would include that of the parent process."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    resident = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return resident[0] if resident else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    print(json.dumps(_predicted(sys.argv[1], *map(int, sys.argv[2:]))))
