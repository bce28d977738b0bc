"""Draws from the SSJF authors' data: sweeps from one random stream, as theirs, and pools."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from ssjf.workload import datasets

Times = Callable[[np.random.RandomState, Any], np.ndarray]
"""Draws the arrival times of the jobs of one run at one swept value."""


def authors_rows() -> pd.DataFrame:
    """Read output tokens and predicted classes of the authors' test rows."""
    data = datasets.load("ssjf-lmsys")
    classes = {name: data.predictions[name].astype(np.int8) for name in ("cls3", "cls5")}
    return pd.DataFrame({"output_tokens": data.output_tokens.astype(np.int16), **classes})


def part(pool: pd.DataFrame, rows, times, x=0, seed=0, run=0, column="arrived_at") -> pd.DataFrame:
    """Make the rows of one run from rows of a pool and ``times``, stored as ``column``."""
    keys = {"x": np.float32(x), "seed": np.int32(seed), "run": np.int16(run), column: times}
    return pd.DataFrame(keys).join(pool.iloc[rows].reset_index(drop=True))


def whole_second_poisson(state: np.random.RandomState, rate: float, jobs: int) -> np.ndarray:
    """The authors' "Poisson" arrivals: counts per second, all at the start of the second."""
    counts = state.poisson(rate, int(jobs / rate))
    while counts.sum() < jobs:
        counts = np.append(counts, state.poisson(rate, int(jobs / rate)))
    return np.repeat(np.arange(len(counts)), counts)[:jobs].astype(np.float64)


def rate_sweep(rates, keep, runs, jobs, seed, pool: pd.DataFrame | None = None) -> pd.DataFrame:
    """Sweep the rate of Poisson arrivals of the authors' rows or of another pool."""
    pool = authors_rows() if pool is None else pool
    return _sweep(pool, _poisson(jobs), rates, keep, runs, seed, np.random.RandomState(seed))


def cv_sweep(rate, cvs, keep, runs, jobs, seed, after_rates=()) -> pd.DataFrame:
    """Sweep the coefficient of variation of Gamma gaps.

    Gaps are stored instead of sums, whose rounding would lose the smallest (1e-20 s and less).
    The authors' script continues the random stream of its rate sweep: ``after_rates``.
    """
    pool, state = authors_rows(), np.random.RandomState(seed)
    for _ in _runs(state, len(pool), after_rates, runs, _poisson(jobs)):
        pass  # only the state it leaves behind matters

    def gaps(state: np.random.RandomState, cv: float) -> np.ndarray:
        return state.gamma((1 / cv) ** 2, cv**2 / rate, jobs)

    return _sweep(pool, gaps, cvs, keep, runs, seed, state, "gap_seconds")


def jobs_sweep(rate, jobs, keep, runs, seed) -> pd.DataFrame:
    """Sweep the number of jobs with Poisson arrivals."""

    def times(state: np.random.RandomState, n: int) -> np.ndarray:
        return whole_second_poisson(state, rate, n)

    return _sweep(authors_rows(), times, jobs, keep, runs, seed, np.random.RandomState(seed))


def _poisson(jobs: int) -> Times:
    return lambda state, rate: whole_second_poisson(state, rate, jobs)


def _runs(
    state: np.random.RandomState, total: int, values: Iterable[float], runs: int, times: Times
) -> Iterator[tuple[float, int, np.ndarray, np.ndarray]]:
    """Draw every run: swept value, number, times, and rows of a pool of ``total`` rows.

    As in the authors' script, one random stream serves all values, and times are drawn before rows
    (without replacement), so that seed 42 gives their published runs.
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
    """Windows of consecutive arrivals of a trace (whole ms), with lengths of the authors' rows."""
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
    """Lengths and predictions of ``requests`` rows drawn with replacement; no arrivals."""
    pool = authors_rows()
    rows = np.random.RandomState(seed).choice(len(pool), requests, replace=True)
    return part(pool, rows, np.zeros(requests), seed=seed)


def trace_gaps(name, requests, seed) -> pd.DataFrame:
    """Consecutive arrivals of a trace from a random start, scaled to one per second."""
    arrived_at = datasets.load(name).arrived_at
    start = np.random.default_rng(seed).integers(0, len(arrived_at) - requests)
    window = arrived_at[start : start + requests + 1]
    return pd.DataFrame({"arrived_at": (window[1:] - window[0]) * requests / np.ptp(window)})
