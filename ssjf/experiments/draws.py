"""Workloads drawn from data: lengths, predictions and arrivals of many small runs, no text.

A draw is a table with columns ``x`` (the swept value), ``seed``, ``run``, ``arrived_at`` (or
``gap_seconds``, the time since the arrival before), ``output_tokens`` and one per predictor
(``cls3``, ``cls5``, ``predicted_tokens``). It is made once from the data set and committed under
``results/workloads``, named by the hash of what was asked, so that every run can be simulated
again without the data.
"""

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ssjf.errors import InputError, unknown
from ssjf.experiments import paths, sweep_draws
from ssjf.experiments.pools import predicted
from ssjf.experiments.store import canonical, digest, write_parquet
from ssjf.experiments.sweep_draws import part, whole_second_poisson
from ssjf.request import Requests
from ssjf.workload import datasets, synthetic

Options = dict[str, Any]


def draw(options: Options) -> pd.DataFrame:
    """The draw asked for: from the committed files, else made from the data set and written.

    Each seed has a file of its own, which experiments with more or fewer seeds share.
    """
    if "seeds" in options:
        rest = {key: value for key, value in options.items() if key != "seeds"}
        return pd.concat([draw(rest | {"seed": seed}) for seed in options["seeds"]])
    if options["draw"] in LIVE:
        return _live(canonical(options))
    path = draw_path(options)
    if not path.exists():
        write_parquet(make(options), path)
    try:
        return pd.read_parquet(path)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"the draw {path} is not a readable parquet file ({reason}); restore it, or delete it "
            "to make it again from the data set"
        ) from None


@cache
def _live(options: str) -> pd.DataFrame:
    return make(json.loads(options))


def draw_path(options: Options) -> Path:
    """Where a draw lies; its name tells the kind, its hash the rest."""
    return paths.workloads() / f"{options['draw']}-{digest(options)}.parquet"


def make(options: Options) -> pd.DataFrame:
    """Make a draw from the data sets (InputError where they are not on this machine)."""
    kind = options["draw"]
    if kind not in KINDS:
        raise unknown("draw", kind, KINDS)
    return KINDS[kind](**{key: value for key, value in options.items() if key != "draw"})


def _windows(trace, windows, jobs, seed) -> pd.DataFrame:
    """Windows of consecutive arrivals of a trace, offsets in whole milliseconds, own lengths."""
    data = datasets.load("ssjf-lmsys")
    arrived_at = datasets.load(trace).arrived_at
    state = np.random.RandomState(seed)
    parts = []
    for run in range(windows):
        start = state.randint(0, len(arrived_at) - jobs + 1)
        offsets = np.floor(arrived_at[start : start + jobs] * 1000)
        rows = state.choice(len(data), jobs, replace=False)
        parts.append(part(data, rows, offsets - offsets[0], 0, seed, run))
    return pd.concat(parts, ignore_index=True)


def _pool(requests, seed) -> pd.DataFrame:
    """Lengths and predictions of so many requests, drawn with replacement; no arrivals."""
    data = datasets.load("ssjf-lmsys")
    rows = np.random.RandomState(seed).choice(len(data), requests, replace=True)
    return part(data, rows, np.zeros(requests), 0, seed, 0)


def _trace_gaps(name, requests, seed) -> pd.DataFrame:
    """So many consecutive arrivals of a trace from a random one on, scaled to one a second."""
    arrived_at = datasets.load(name).arrived_at
    start = np.random.default_rng(seed).integers(0, len(arrived_at) - requests)
    window = arrived_at[start : start + requests + 1]
    return pd.DataFrame({"arrived_at": (window[1:] - window[0]) * requests / np.ptp(window)})


def _prompt_tokens(data) -> pd.DataFrame:
    """Tokens of the prompts of a test split, by MiniLM's word pieces, beside their hashes."""
    from tokenizers import Tokenizer

    from ssjf.proxy.encoder.network import backbone
    from ssjf.workload.texts import load_texts, prompt_hash

    texts = load_texts(data).split("test")
    tokenizer = Tokenizer.from_str(backbone("minilm")[0])
    tokenizer.no_truncation()
    read = (tokenizer.encode(prompt, add_special_tokens=False) for prompt in texts.prompts)
    counts = np.clip([len(each.ids) for each in read], 1, LONGEST_PROMPT)
    hashes = [prompt_hash(prompt) for prompt in texts.prompts]
    return pd.DataFrame({"prompt_hash": hashes, "prompt_tokens": counts.astype(np.int16)})


def _prompted_pool(of, label) -> pd.DataFrame:
    """What proxies predicted of a data set's test split, and the tokens of its prompts."""
    said = predicted(of, label=label)
    counted = draw({"draw": "prompt-tokens", "data": PROMPTED[label]})
    counted = counted.drop_duplicates("prompt_hash").set_index("prompt_hash")["prompt_tokens"]
    hashes = said["prompt_hash"].str.rpartition("-")[2]  # a turn is named by its conversation too
    return said.assign(prompt_tokens=hashes.map(counted)).dropna(subset="prompt_tokens")


LONGEST_PROMPT = 512
PROMPTED = {"alpaca-davinci": "alpaca-vicuna", "sharegpt": "sharegpt"}
"""Data sets by the label of their predictions."""


def _log_normal(mean, sigma, most, requests, seed) -> pd.DataFrame:
    """Made-up lengths, log-normal with so many tokens in the mean, ``most`` at most."""
    rng = np.random.default_rng(seed)
    output = synthetic.lognormal(requests, mean, sigma, rng, high=most)
    keys = {"x": np.float32(0), "seed": np.int32(0), "run": np.int16(0), "arrived_at": 0.0}
    return pd.DataFrame({"output_tokens": output}).assign(**keys)


def _proxy_test(proxy, data, column) -> pd.DataFrame:
    """A proxy's predictions on the test split of a text data set: hashes and numbers, no text."""
    from ssjf.proxy import io as folder
    from ssjf.workload.texts import load_texts, prompt_hash

    texts = load_texts(data, label=column).split("test")
    predicted = folder.load(proxy).predict(texts.prompts)
    return pd.DataFrame(
        {
            "x": np.float32(0),
            "seed": np.int32(0),
            "run": np.int16(0),
            "arrived_at": 0.0,
            "output_tokens": texts.output_tokens.astype(np.int16),
            "predicted_tokens": predicted.tokens.astype(np.float32),
            "prompt_hash": [prompt_hash(prompt) for prompt in texts.prompts],
        }
    )


def _predicted_sweep(pool, rates, keep, runs, jobs, seed) -> pd.DataFrame:
    """The rate sweep over a pool of predicted requests, drawn as the authors draw theirs."""
    requests = draw(pool).drop(columns=["x", "seed", "run", "arrived_at", "prompt_hash"])
    state = np.random.RandomState(seed)
    parts = []
    for rate in rates:
        for run in range(runs):
            arrived = whole_second_poisson(state, rate, jobs)
            rows = state.choice(len(requests), len(arrived), replace=False)
            if rate in keep:
                keys = {"x": np.float32(rate), "seed": np.int32(seed), "run": np.int16(run)}
                drawn = pd.DataFrame(keys, index=range(jobs)).assign(arrived_at=arrived)
                parts.append(drawn.join(requests.iloc[rows].reset_index(drop=True)))
    return pd.concat(parts, ignore_index=True)


KINDS: dict[str, Callable[..., pd.DataFrame]] = {
    "rate-sweep": sweep_draws.rate_sweep,
    "cv-sweep": sweep_draws.cv_sweep,
    "jobs-sweep": sweep_draws.jobs_sweep,
    "trace-windows": _windows,
    "length-pool": _pool,
    "trace-gaps": _trace_gaps,
    "prompt-tokens": _prompt_tokens,
    "prompted": _prompted_pool,
    "log-normal": _log_normal,
    "proxy-test": _proxy_test,
    "predicted": predicted,
    "predicted-sweep": _predicted_sweep,
}
LIVE = ("predicted", "predicted-sweep", "prompted", "log-normal")
"""Draws that are not stored: they are made of committed raw runs whenever they are asked for."""


_NOT_PREDICTED = {
    "x", "seed", "run", "arrived_at", "gap_seconds", "output_tokens", "prompt_tokens",
    "prompt_hash",
}  # fmt: skip


def to_requests(table: pd.DataFrame) -> Requests:
    """Rows of a draw as a workload (without ``prompt_tokens``, as in the published model: 1).

    Of a draw of gaps all come at 0: whoever serves them sums the gaps (see ``small_runs``).
    """
    output = table["output_tokens"].to_numpy(np.int64)
    ones = np.ones_like(output)
    prompt = table["prompt_tokens"].to_numpy(np.int64) if "prompt_tokens" in table else ones
    names = [name for name in table.columns if name not in _NOT_PREDICTED]
    predictions = {name: table[name].to_numpy(np.float64) for name in names}
    arrived = table["arrived_at"].to_numpy(np.float64) if "arrived_at" in table else 0.0 * ones
    return Requests(arrived, prompt, output, predictions)


def small_runs(table: pd.DataFrame) -> Iterator[tuple[float, int, int, Requests, np.ndarray]]:
    """The runs of a draw: (x, seed, run, requests, when they come: arrivals or gaps as drawn)."""
    keys = table[["x", "seed", "run"]].to_numpy()
    everything = to_requests(table)
    times = table["gap_seconds" if "gap_seconds" in table else "arrived_at"].to_numpy(np.float64)
    starts = np.flatnonzero(np.r_[True, (keys[1:] != keys[:-1]).any(axis=1)])
    for start, end in zip(starts, [*starts[1:], len(table)], strict=True):
        x, seed, run = keys[start]
        rows = slice(start, end)
        yield float(x), int(seed), int(run), everything.take(rows), times[rows]
