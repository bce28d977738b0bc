"""The load: ``vllm bench serve`` as it is, on prompts of ours, and what it recorded."""

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
from ssjf.harness.interpreter import python
from ssjf.harness.server import HOST, LiveServer, environment
from ssjf.request import IntArray

OF_MIDDLEWARE = {"overhead_ms": "overhead", "predictor_ms": "prediction"}


@dataclass(frozen=True)
class Load:
    """How requests are sent: ``rate`` a second (Poisson), all at once without one, at most
    ``concurrency`` at a time where that is given."""

    rate: float | None = None
    concurrency: int | None = None

    def options(self) -> list[str]:
        """As options of ``vllm bench serve``."""
        rate = "inf" if self.rate is None else f"{self.rate:g}"
        most = [] if self.concurrency is None else ["--max-concurrency", str(self.concurrency)]
        return ["--request-rate", rate, *most]


def measured(
    server: LiveServer, prompts: Sequence[str], output_tokens: IntArray, load: Load, seed: int
) -> pd.DataFrame:
    """Send the prompts in their order, each for an answer of so many tokens; a row per request.

    Columns: arrived_at (s from the first), prompt_tokens, output_tokens, ttft_seconds and
    e2el_seconds as the client saw them, and of the middleware's own clock the mean of the run,
    overhead_ms and predictor_ms (which is a part of it), and predicted, how many requests had a
    prediction in time: missing for a server without the middleware. The same seed gives the same
    arrivals. InputError where a request failed or has another length than was asked for.
    """
    before = counters(server)
    with tempfile.TemporaryDirectory(prefix="ssjf-load-") as folder:
        rows = _bench(server, prompts, output_tokens, load, seed, Path(folder))
    after = counters(server)
    if not np.array_equal(rows["output_tokens"], output_tokens):
        raise InputError(f"the server of {server.model} gave answers of other lengths than asked")
    return rows.assign(**_difference(before, after))


def _bench(
    server: LiveServer, prompts: Sequence[str], output_tokens: IntArray, load: Load, seed: int,
    folder: Path,
) -> pd.DataFrame:  # fmt: skip
    data = folder / "requests.jsonl"
    pairs = zip(prompts, output_tokens, strict=True)
    data.write_text("".join(
        json.dumps({"prompt": prompt, "output_tokens": int(tokens)}) + "\n"
        for prompt, tokens in pairs
    ))  # fmt: skip
    command = [
        str(python()), "-m", "vllm.entrypoints.cli.main", "bench", "serve",
        "--model", server.model, "--host", HOST, "--port", str(server.port),
        "--dataset-name", "custom", "--dataset-path", str(data), "--disable-shuffle",
        "--custom-output-len", "-1", "--skip-chat-template", "--ignore-eos",
        "--temperature", "0", "--num-prompts", str(len(prompts)), "--seed", str(seed),
        "--ready-check-timeout-sec", "0", "--disable-tqdm", *load.options(),
        "--save-result", "--save-detailed", "--result-dir", str(folder),
        "--result-filename", "result.json",
    ]  # fmt: skip
    done = subprocess.run(command, env=environment(server.model), capture_output=True, text=True)
    result = folder / "result.json"
    if done.returncode or not result.exists():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise InputError(f"vllm bench serve failed: {lines[-1].strip() if lines else 'silently'}")
    return _rows(json.loads(result.read_text()))


def _rows(result: dict[str, Any]) -> pd.DataFrame:
    """Lengths and times of a detailed result; its texts are left where they are."""
    failed = [error for error in result["errors"] if error]
    if failed:
        why = failed[0].strip().splitlines()[-1]  # of a traceback
        raise InputError(f"{len(failed)} of {len(result['errors'])} requests failed: {why}")
    started = np.array(result["start_times"])
    first = np.array(result["ttfts"])
    gaps = np.array([sum(each) for each in result["itls"]])
    return pd.DataFrame({
        "arrived_at": started - started.min(),
        "prompt_tokens": np.array(result["input_lens"], np.int32),
        "output_tokens": np.array(result["output_lens"], np.int32),
        "ttft_seconds": first,
        "e2el_seconds": first + gaps,
    })  # fmt: skip


def counters(server: LiveServer) -> dict[str, float]:
    """The sums and counts of the middleware's metrics; empty where there is none."""
    lines = re.findall(r"^ssjf_(\w+) (\S+)$", server.get("/metrics"), re.MULTILINE)
    return {name: float(value) for name, value in lines}


def _difference(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Means of the run, from what the metrics rose by."""
    rose = {name: value - before.get(name, 0.0) for name, value in after.items()}
    means = {}
    for column, name in OF_MIDDLEWARE.items():
        count = rose.get(f"{name}_seconds_count", 0.0)
        means[column] = 1e3 * rose[f"{name}_seconds_sum"] / count if count else np.nan
    return means | {"predicted": rose.get("predictions_total", np.nan)}
