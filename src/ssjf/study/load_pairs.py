"""Throughput of a saturated server with the middleware and past it, in short turns.

A machine that others share changes its speed from minute to minute by more than is looked for
here, and two processes of one server need not be equally fast. So it is one process, which serves
turns of a few seconds in either way, in random order within each pair.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter, sleep
from typing import Any

import numpy as np
import pandas as pd

from ssjf.study.load import Spec, environment_of, live, prompts_of
from ssjf.study.load_bypass import PAST
from ssjf.study.load_prompts import STREAM
from ssjf.study.load_server import LiveServer
from ssjf.study.load_summary import WITH, WITHOUT

HEADERS: dict[str, dict[str, str]] = {WITH: {}, WITHOUT: {PAST: "yes"}}
AHEAD_SECONDS = 0.1  # until the first requests of a turn run


def rows(spec: Spec) -> pd.DataFrame:
    """A row per turn: ``run`` is the pair, ``way`` how it is served.

    ``requests_per_second``; ``front_seconds`` and ``engine_seconds``, the processor's time of a
    request in the process that answers HTTP, in which the middleware runs, and in the engine's.
    ``workload``: so many ``pairs`` of turns, each of ``requests`` sent at once for answers of
    ``output_tokens`` each.
    """
    workload, slots = spec["workload"], spec["slots"]
    server = live(spec["deployment"], slots, spec["serve"], bypassed=True)
    n, tokens = workload["requests"], workload["output_tokens"]
    prompts, _ = prompts_of(spec, workload["pairs"] * n)
    rng = np.random.default_rng([spec["seed"], STREAM])
    found = []
    for pair in range(workload["pairs"]):
        same = prompts[pair * n : (pair + 1) * n]
        for way in rng.permutation(list(HEADERS)):
            before = server.processor_seconds()
            rate = requests_per_second(server, same, tokens, slots, HEADERS[way])
            front, engine = np.subtract(server.processor_seconds(), before) / n
            found.append({"x": 0.0, "seed": spec["seed"], "run": pair, "way": str(way),
                          "requests_per_second": rate, "front_seconds": front,
                          "engine_seconds": engine})  # fmt: skip
    frame = pd.DataFrame(found)
    frame.attrs["environment"] = environment_of(spec)
    return frame


def requests_per_second(
    server: LiveServer, prompts: Sequence[str], tokens: int, slots: int,
    headers: Mapping[str, str],
) -> float:  # fmt: skip
    """How fast a turn's requests finish while all slots are taken and others wait.

    From the end of the first ``slots`` requests to that of the last but ``slots``: before, the
    slots fill; after, they empty. The first ones go ahead, each longer than the one before, so
    that in either way the slots come free one after the other, evenly.
    """

    def ask(prompt: str, most: int) -> float:
        body: dict[str, Any] = {"model": server.model, "prompt": prompt, "max_tokens": most,
                                "ignore_eos": True, "temperature": 0}  # fmt: skip
        server.post("/v1/completions", body, headers)
        return perf_counter()

    with ThreadPoolExecutor(len(prompts)) as threads:
        longer = tokens // slots
        ahead = [threads.submit(ask, prompt, tokens + i * longer)
                 for i, prompt in enumerate(prompts[:slots])]  # fmt: skip
        sleep(AHEAD_SECONDS)
        others = [threads.submit(ask, prompt, tokens) for prompt in prompts[slots:]]
        ended = sorted(each.result() for each in [*ahead, *others])
    return (len(ended) - 2 * slots) / (ended[-slots - 1] - ended[slots - 1])
