"""Draws from the SSJF authors' data: sweeps, out of one stream of random numbers, and pools."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from ssjf.workload import datasets

Times = Callable[[np.random.RandomState, Any], np.ndarray]
"""When the jobs of one run at one swept value come."""


def authors_rows() -> pd.DataFrame:
    """Output tokens and predicted classes of the authors' test rows."""
    data = datasets.load("ssjf-lmsys")
    classes = {name: data.predictions[name].astype(np.int8) for name in ("cls3", "cls5")}
    return pd.DataFrame({"output_tokens": data.output_tokens.astype(np.int16), **classes})


def part(pool: pd.DataFrame, rows, times, x=0, seed=0, run=0, column="arrived_at") -> pd.DataFrame:
    """The rows of one run, drawn from a pool, with ``times`` under the name ``column``."""
    keys = {"x": np.float32(x), "seed": np.int32(seed), "run": np.int16(run), column: times}
    return pd.DataFrame(keys).join(pool.iloc[rows].reset_index(drop=True))


def whole_second_poisson(state: np.random.RandomState, rate: float, jobs: int) -> np.ndarray:
    """The authors' "Poisson" arrivals: counts per whole second, each at the second's index."""
    counts = state.poisson(rate, int(jobs / rate))
    while counts.sum() < jobs:
        counts = np.append(counts, state.poisson(rate, int(jobs / rate)))
    return np.repeat(np.arange(len(counts)), counts)[:jobs].astype(np.float64)


def rate_sweep(rates, keep, runs, jobs, seed, pool: pd.DataFrame | None = None) -> pd.DataFrame:
    """Poisson arrivals over the rate, of the authors' rows or of another pool."""
    pool = authors_rows() if pool is None else pool
    return _sweep(pool, _poisson(jobs), rates, keep, runs, seed, np.random.RandomState(seed))


def cv_sweep(rate, cvs, keep, runs, jobs, seed, after_rates=()) -> pd.DataFrame:
    """Gamma gaps over their coefficient of variation.

    The gaps are kept, not their sums, in whose rounding the smallest, 1e-20 s and less, would
    drown. The authors' script goes on with the stream of its rate sweep: ``after_rates``.
    """
    pool, state = authors_rows(), np.random.RandomState(seed)
    for _ in _runs(state, len(pool), after_rates, runs, _poisson(jobs)):
        pass  # only the state it leaves behind matters

    def gaps(state: np.random.RandomState, cv: float) -> np.ndarray:
        return state.gamma((1 / cv) ** 2, cv**2 / rate, jobs)

    return _sweep(pool, gaps, cvs, keep, runs, seed, state, "gap_seconds")


def jobs_sweep(rate, jobs, keep, runs, seed) -> pd.DataFrame:
    """Poisson arrivals over the number of jobs."""

    def times(state: np.random.RandomState, n: int) -> np.ndarray:
        return whole_second_poisson(state, rate, n)

    return _sweep(authors_rows(), times, jobs, keep, runs, seed, np.random.RandomState(seed))


def _poisson(jobs: int) -> Times:
    return lambda state, rate: whole_second_poisson(state, rate, jobs)


def _runs(
    state: np.random.RandomState, total: int, values: Iterable[float], runs: int, times: Times
) -> Iterator[tuple[float, int, np.ndarray, np.ndarray]]:
    """Of every run: swept value, number, times, and rows of the ``total`` in the pool.

    One stream of random numbers goes through all values, as in the authors' script. The order
    of the draws (times, then rows without replacement) is theirs, so that seed 42 gives their
    published runs.
    """
    for x in values:
        for run in range(runs):
            at = times(state, x)
            yield x, run, at, state.choice(total, len(at), replace=False)


def _sweep(pool, times, values, keep, runs, seed, state, column="arrived_at") -> pd.DataFrame:
    """The runs at the values to keep."""
    drawn = _runs(state, len(pool), values, runs, times)
    parts = [part(pool, rows, at, x, seed, run, column) for x, run, at, rows in drawn if x in keep]
    return pd.concat(parts, ignore_index=True)


def trace_windows(trace, windows, jobs, seed) -> pd.DataFrame:
    """Windows of consecutive arrivals of a trace, offsets in whole milliseconds, own lengths."""
    pool, arrived_at = authors_rows(), datasets.load(trace).arrived_at
    state = np.random.RandomState(seed)
    parts = []
    for run in range(windows):
        start = state.randint(0, len(arrived_at) - jobs + 1)
        offsets = np.floor(arrived_at[start : start + jobs] * 1000)
        rows = state.choice(len(pool), jobs, replace=False)
        parts.append(part(pool, rows, offsets - offsets[0], seed=seed, run=run))
    return pd.concat(parts, ignore_index=True)


def length_pool(requests, seed) -> pd.DataFrame:
    """Lengths and predictions of so many requests, drawn with replacement; no arrivals."""
    pool = authors_rows()
    rows = np.random.RandomState(seed).choice(len(pool), requests, replace=True)
    return part(pool, rows, np.zeros(requests), seed=seed)


def trace_gaps(name, requests, seed) -> pd.DataFrame:
    """So many consecutive arrivals of a trace from a random one on, scaled to one a second."""
    arrived_at = datasets.load(name).arrived_at
    start = np.random.default_rng(seed).integers(0, len(arrived_at) - requests)
    window = arrived_at[start : start + requests + 1]
    return pd.DataFrame({"arrived_at": (window[1:] - window[0]) * requests / np.ptp(window)})
