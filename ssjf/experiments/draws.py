"""Workloads drawn from data sets: arrivals, lengths and predictions, without text.

A draw is a table with columns ``x`` (the swept value), ``seed``, ``run``, ``arrived_at`` (or
``gap_seconds``, the time since the previous arrival), ``output_tokens`` and one per predictor
(``cls3``, ``cls5``, ``predicted_tokens``). It is made once from a data set and committed under
``results/workloads``, named by the hash of its options, so that every run can be simulated again
without the data.
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
from ssjf.experiments import paths, pools, sweep_draws
from ssjf.experiments.grid import experiment
from ssjf.experiments.store import canonical, digest, write_parquet
from ssjf.proxy import predict
from ssjf.request import PAPER_THRESHOLDS, Requests

Options = dict[str, Any]
PROMPTED = {"alpaca-davinci": "alpaca-vicuna", "sharegpt": "sharegpt"}
"""Data sets by the label of their predictions."""


def draw(options: Options) -> pd.DataFrame:
    """Read a draw from the committed files, or make it from the data and write it.

    Each seed has its own file, which experiments with more or fewer seeds share.
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
    """The file of a draw, named by its kind and the hash of its options."""
    return paths.workloads() / f"{options['draw']}-{digest(options)}.parquet"


def make(options: Options) -> pd.DataFrame:
    """Make a draw from the data sets; InputError if they are not on this machine."""
    kind = options["draw"]
    if kind not in KINDS:
        raise unknown("draw", kind, KINDS)
    return KINDS[kind](**{key: value for key, value in options.items() if key != "draw"})


def _prompted(of: list[str], label: str) -> pd.DataFrame:
    """Predictions of proxies for a data set's test split, with prompt lengths in tokens."""
    pool = pools.predicted(of, label=label)
    counted = draw({"draw": "prompt-tokens", "data": PROMPTED[label]})
    counted = counted.drop_duplicates("prompt_hash").set_index("prompt_hash")["prompt_tokens"]
    hashes = pool["prompt_hash"].str.rpartition("-")[2]  # a turn's key begins with its conversation
    return pool.assign(prompt_tokens=hashes.map(counted)).dropna(subset="prompt_tokens")


def _mixed(of: list[Options], shares: list[float], requests: int, seed: int) -> pd.DataFrame:
    """Lengths drawn from several pools with the given shares."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(of), requests, p=shares)
    lengths = [rng.choice(draw(each)["output_tokens"].to_numpy(), requests) for each in of]
    table = pd.DataFrame({"output_tokens": np.choose(chosen, lengths)})
    return sweep_draws.part(table, slice(None), np.zeros(requests))


def _predicted_sweep(pool: Options, **sweep: Any) -> pd.DataFrame:
    """The authors' rate sweep over a pool of predicted requests."""
    requests = draw(pool).drop(columns=["x", "seed", "run", "arrived_at", "prompt_hash"])
    return sweep_draws.rate_sweep(**sweep, pool=requests)


KINDS: dict[str, Callable[..., pd.DataFrame]] = {
    "rate-sweep": sweep_draws.rate_sweep,
    "cv-sweep": sweep_draws.cv_sweep,
    "jobs-sweep": sweep_draws.jobs_sweep,
    "trace-windows": sweep_draws.trace_windows,
    "length-pool": sweep_draws.length_pool,
    "trace-gaps": sweep_draws.trace_gaps,
    "prompt-tokens": pools.prompt_tokens,
    "prompted": _prompted,
    "log-normal": pools.log_normal,
    "mixed": _mixed,
    "proxy-test": pools.proxy_test,
    "predicted": pools.predicted,
    "predicted-sweep": _predicted_sweep,
}
LIVE = ("predicted", "predicted-sweep", "prompted", "log-normal", "mixed")
"""Draws that are not stored, because they need only committed raw runs or a seed."""
NOT_PREDICTED = ("x", "seed", "run", "arrived_at", "gap_seconds", "output_tokens", "prompt_tokens",
                 "prompt_hash")  # fmt: skip


def to_requests(table: pd.DataFrame) -> Requests:
    """Turn rows of a draw into a workload (prompts of 1 token if the draw has none).

    For a draw of gaps all arrivals are 0; the caller sums the gaps (see ``small_runs``).
    """
    output = table["output_tokens"].to_numpy(np.int64)
    ones = np.ones_like(output)
    prompt = table["prompt_tokens"].to_numpy(np.int64) if "prompt_tokens" in table else ones
    names = table.columns.difference(NOT_PREDICTED, sort=False)
    predictions = {name: table[name].to_numpy(np.float64) for name in names}
    arrived = table["arrived_at"].to_numpy(np.float64) if "arrived_at" in table else 0.0 * ones
    return Requests(arrived, prompt, output, predictions)


def small_runs(table: pd.DataFrame) -> Iterator[tuple[float, int, int, Requests, np.ndarray]]:
    """Yield the runs of a draw: (x, seed, run, requests, arrival times or gaps as drawn)."""
    keys = table[["x", "seed", "run"]].to_numpy()
    everything = to_requests(table)
    times = table["gap_seconds" if "gap_seconds" in table else "arrived_at"].to_numpy(np.float64)
    starts = np.flatnonzero(np.r_[True, (keys[1:] != keys[:-1]).any(axis=1)])
    for start, end in zip(starts, [*starts[1:], len(table)], strict=True):
        x, seed, run = keys[start]
        rows = slice(start, end)
        yield float(x), int(seed), int(run), everything.take(rows), times[rows]


def pool_of(name: str) -> Requests:
    """The pool of requests, with predictions, that an experiment draws from."""
    return to_requests(draw(experiment(name).workload["pool"]))


def agreement(name: str) -> pd.Series:
    """Kendall's τ-b between each predictor of an experiment and the truth, by series."""
    from scipy.stats import kendalltau

    pool, taus = pool_of(name), {"sjf": 1.0}
    for series in experiment(name).series:
        if "predictor" in series:
            predicted = predict(series["predictor"], pool, np.random.default_rng(0))
            tau = kendalltau(predicted, pool.output_tokens, method="asymptotic").statistic
            taus[series["series"]] = tau
    return pd.Series(taus, name="tau")


def authors_predictions(column: str, rows: int | None = None) -> pd.DataFrame:
    """The SSJF authors' published predictions (``cls3`` or ``cls5``) on their own test split.

    A row per prompt, with the columns of a training run (the first ``rows`` of 85,482); a class is
    decoded to the mean true length of its members.
    """
    pool = draw({"draw": "length-pool", "requests": 100_000, "seed": 42}).iloc[:rows]
    thresholds = PAPER_THRESHOLDS if column == "cls5" else PAPER_THRESHOLDS[1::2]
    means = pool.groupby(column)["output_tokens"].mean()
    return pd.DataFrame(
        {
            "conversation": np.arange(len(pool)).astype(str),
            "output_tokens": pool["output_tokens"],
            "true_class": np.searchsorted(thresholds, pool["output_tokens"], side="right"),
            "predicted_class": pool[column],
            "predicted_tokens": pool[column].map(means),
        }
    )
