"""How fast a proxy model is: every case in a process of its own, on one thread."""

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

from ssjf.proxy import io as folder

REPEATS = 50
PROMPT_TOKENS = (64, 256)
BATCHES = (1, 32)
VOCABULARY = """
a about above account across act add after again age ago agree air all allow almost along already
also always among amount analysis and animal another answer any appear apply area argue around
article ask at available away back base be because become before begin behind believe below best
better between big blue body book both bring brief build business but buy call can capital carry
case cause center century certain chance change character child choose city class clear climate code
color come common community company compare complete computer concept condition consider contain
continue convert cost could country course create culture current data day deal decide deep describe
design detail develop difference different discuss do door down draw drive during each early earth
easy economy edit education effect eight electric end energy engine enough equal essay even every
example explain eye face fact family far feature few field figure final find first follow food for
force form friend from function future game general generate get give given go good government great
green group grow half hand happen hard have health hear help her high history home hour house how
human idea identify if image important in include increase industry information input interest into
invent is issue item job just keep kind know language large last law lead learn letter level life
light like line list literature little long look love machine main make market material mean measure
method model money month more most mountain move music name nature need network never new next night
number object ocean of offer often old on one only open or order other our output over paper
paragraph part pattern people person physics place plan plant play poem point possible power present
problem process produce product program project protect provide question rather reach read reason
recent recipe reduce remember report research result review rewrite river rule say school science
second sentence set seven several she short should show simple since six small social software
solution some sound source space speak standard start state step story student study such suggest
summarize system table take team technology tell text than that the their theory thing think three
time to today topic toward translate travel tree true two type under understand universe until use
value very visit voice want war water way weather week what when where which while who why will wind
with without woman word work world would write year you young
"""
WORDS = VOCABULARY.split()


def proxy(name: str = folder.BUILTIN, repeats: int = REPEATS) -> list[dict[str, float | str]]:
    """Speed of a proxy by prompt and batch: text in, prediction out, tokenisation included.

    Objects with ``proxy``, ``prompt_tokens`` (words between spaces, which tokenizers count about
    alike), ``batch``, ``ms_per_prompt`` and ``prompts_per_second`` (of the median call, each call
    on new prompts), ``rss_mb`` (most memory resident), ``load_ms`` (reading and checking the
    folder) and ``first_call_ms``, which compiles and is in no other figure.
    """
    folder.load(name)  # what is wrong with it is said here
    return [
        in_own_process(__name__, name, *case, repeats) for case in product(PROMPT_TOKENS, BATCHES)
    ]


def prompts(n: int, words: int, rng: np.random.Generator) -> list[str]:
    """Prompts of so many words, drawn alike from ``WORDS``."""
    return [" ".join(row) for row in rng.choice(WORDS, (n, words))]


def _case(name: str, prompt_tokens: int, batch: int, repeats: int) -> dict[str, float | str]:
    rng = np.random.default_rng(0)
    batches = [prompts(batch, prompt_tokens, rng) for _ in range(repeats + 1)]
    started = time.perf_counter()
    predict = folder.load(name).predict
    load = time.perf_counter() - started
    first, *others = (_seconds(predict, each) for each in batches)
    median = statistics.median(others)
    return {
        "proxy": name,
        "prompt_tokens": prompt_tokens,
        "batch": batch,
        "ms_per_prompt": round(1e3 * median / batch, 4),
        "prompts_per_second": round(batch / median, 1),
        "rss_mb": round(most_resident_kb() / 1024, 1),
        "load_ms": round(1e3 * load, 2),
        "first_call_ms": round(1e3 * first, 1),
    }


def _seconds(predict: Callable[[list[str]], object], batch: list[str]) -> float:
    started = time.perf_counter()
    predict(batch)
    return time.perf_counter() - started


ONE_THREAD = {
    f"{library}_NUM_THREADS": "1"
    for library in ("OMP", "OPENBLAS", "MKL", "NUMBA", "VECLIB", "NUMEXPR")
}


def in_own_process(module: str, *arguments: object) -> Any:
    """What ``python -m MODULE ARGUMENTS`` prints, which must be JSON.

    Threads and the place of compiled code are settled before anything is imported.
    """
    with tempfile.TemporaryDirectory() as empty:
        env = os.environ | ONE_THREAD | {"NUMBA_CACHE_DIR": empty}
        command = [sys.executable, "-m", module, *map(str, arguments)]
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def most_resident_kb() -> int:
    """On Linux of this program alone; getrusage counts there what the starting one held."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return found[0] if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    print(json.dumps(_case(sys.argv[1], *map(int, sys.argv[2:]))))
