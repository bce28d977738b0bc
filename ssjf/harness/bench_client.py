"""Load a server with ``vllm bench serve``, on prompts of ours, and read what it recorded."""

import json
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ssjf.errors import InputError
from ssjf.harness.interpreter import last_line, python
from ssjf.harness.server import DIRECT, HOST, LiveServer, environment
from ssjf.request import IntArray


@dataclass(frozen=True)
class Load:
    """How requests are sent.

    rate: Poisson arrivals a second; all at once if None. concurrency: the most at a time, if any.
    """

    rate: float | None = None
    concurrency: int | None = None

    def options(self) -> list[str]:
        """Return the load as options of ``vllm bench serve``."""
        rate = "inf" if self.rate is None else f"{self.rate:g}"
        most = [] if self.concurrency is None else ["--max-concurrency", str(self.concurrency)]
        return ["--request-rate", rate, *most]


def measured(
    server: LiveServer, prompts: Sequence[str], output_tokens: IntArray, load: Load, seed: int
) -> pd.DataFrame:
    """Send the prompts in order, each for an answer of its ``output_tokens``; a row per request.

    The same seed gives the same arrivals.

    Returns
    -------
    arrived_at (s from the first), prompt_tokens, output_tokens, ttft_seconds and e2el_seconds as
    the client saw them. The same in every row, and missing for a server without the middleware:
    overhead_ms and predictor_ms (a part of it), means by the middleware's own clock; predicted, the
    number of requests with a prediction in time.

    Raises
    ------
    InputError: if a request failed or its answer has another length.
    """
    before = counters(server)
    requests = [
        {"prompt": prompt, "output_tokens": int(tokens)}
        for prompt, tokens in zip(prompts, output_tokens, strict=True)
    ]
    rows = _rows(_bench(server, requests, [*load.options(), "--seed", str(seed)]))
    if not np.array_equal(rows["output_tokens"], output_tokens):
        raise InputError(f"the server of {server.model} gave answers of other lengths than asked")
    return rows.assign(**_difference(before, counters(server)))


def _bench(server: LiveServer, requests: list[Any], options: list[str]) -> dict[str, Any]:
    """Return the detailed result of ``vllm bench serve``."""
    with tempfile.TemporaryDirectory(prefix="ssjf-load-") as folder:
        data, result = Path(folder) / "requests.jsonl", Path(folder) / "result.json"
        data.write_text("".join(json.dumps(request) + "\n" for request in requests))
        command = [
            str(python()), "-m", "vllm.entrypoints.cli.main", "bench", "serve",
            "--model", server.model, "--host", HOST, "--port", str(server.port),
            "--dataset-name", "custom", "--dataset-path", str(data), "--disable-shuffle",
            "--custom-output-len", "-1", "--skip-chat-template", "--ignore-eos",
            "--temperature", "0", "--num-prompts", str(len(requests)),
            "--ready-check-timeout-sec", "0", "--disable-tqdm", *options,
            "--save-result", "--save-detailed", "--result-dir", folder,
            "--result-filename", result.name,
        ]  # fmt: skip
        variables = environment(server.model) | DIRECT
        done = subprocess.run(command, env=variables, capture_output=True, text=True)
        if done.returncode or not result.exists():
            raise InputError(f"vllm bench serve failed: {last_line(done.stderr, 'silently')}")
        return json.loads(result.read_text())


def _rows(result: dict[str, Any]) -> pd.DataFrame:
    """Return lengths and times of a detailed result, without its texts."""
    failed = [error for error in result["errors"] if error]
    if failed:
        why = last_line(failed[0])  # of a traceback
        raise InputError(f"{len(failed)} of {len(result['errors'])} requests failed: {why}")
    started = np.array(result["start_times"])
    first = np.array(result["ttfts"])
    return pd.DataFrame({
        "arrived_at": started - started.min(),
        "prompt_tokens": np.array(result["input_lens"], np.int32),
        "output_tokens": np.array(result["output_lens"], np.int32),
        "ttft_seconds": first,
        "e2el_seconds": first + np.array([sum(gaps) for gaps in result["itls"]]),
    })  # fmt: skip


def counters(server: LiveServer) -> dict[str, float]:
    """Return the sums and counts of the middleware's metrics; empty if there is no middleware."""
    lines = re.findall(r"^ssjf_(\w+) (\S+)$", server.get("/metrics"), re.MULTILINE)
    return {name: float(value) for name, value in lines}


def _difference(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Return the means of a run, from how much each metric rose."""
    rose = {name: value - before.get(name, 0.0) for name, value in after.items()}
    means = {}
    for column, name in (("overhead_ms", "overhead"), ("predictor_ms", "prediction")):
        count = rose.get(f"{name}_seconds_count", 0.0)
        means[column] = 1e3 * rose[f"{name}_seconds_sum"] / count if count else np.nan
    return means | {"predicted": rose.get("predictions_total", np.nan)}
