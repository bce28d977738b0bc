"""Draws of the authors' sweeps: many runs of few jobs, out of one stream of random numbers."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from ssjf.request import Requests
from ssjf.workload import datasets

Times = Callable[[np.random.RandomState, Any], np.ndarray]
"""When the jobs of one run at one swept value come."""


def whole_second_poisson(state: np.random.RandomState, rate: float, jobs: int) -> np.ndarray:
    """The authors' "Poisson" arrivals: counts per whole second, each at the second's index."""
    counts = state.poisson(rate, int(jobs / rate))
    while counts.sum() < jobs:
        counts = np.append(counts, state.poisson(rate, int(jobs / rate)))
    return np.repeat(np.arange(len(counts)), counts)[:jobs].astype(np.float64)


def rate_sweep(rates, keep, runs, jobs, seed) -> pd.DataFrame:
    """Poisson arrivals over the rate."""
    state = np.random.RandomState(seed)
    return _sweep(_runs(state, rates, runs, _poisson(jobs)), keep, seed, "arrived_at")


def cv_sweep(rate, cvs, keep, runs, jobs, seed, after_rates=()) -> pd.DataFrame:
    """Gamma gaps over their coefficient of variation.

    The gaps are kept, not their sums, in whose rounding the smallest, 1e-20 s and less, would
    drown. The authors' script goes on with the stream of its rate sweep: ``after_rates``.
    """
    state = np.random.RandomState(seed)
    for _ in _runs(state, after_rates, runs, _poisson(jobs)):
        pass  # only the state it leaves behind matters
    drawn = _runs(state, cvs, runs, lambda s, cv: s.gamma((1 / cv) ** 2, cv**2 / rate, jobs))
    return _sweep(drawn, keep, seed, "gap_seconds")


def jobs_sweep(rate, jobs, keep, runs, seed) -> pd.DataFrame:
    """Poisson arrivals over the number of jobs."""
    state = np.random.RandomState(seed)
    drawn = _runs(state, jobs, runs, lambda s, n: whole_second_poisson(s, rate, n))
    return _sweep(drawn, keep, seed, "arrived_at")


def _poisson(jobs: int) -> Times:
    return lambda state, rate: whole_second_poisson(state, rate, jobs)


def _runs(
    state: np.random.RandomState, values: Iterable[float], runs: int, come: Times
) -> Iterator[tuple[float, int, np.ndarray, np.ndarray]]:
    """Of every run: swept value, number, times, and rows of the data.

    One stream of random numbers goes through all values, as in the authors' script. The order
    of the draws (times, then rows without replacement) is theirs, so that seed 42 gives their
    published runs.
    """
    total = len(datasets.load("ssjf-lmsys"))
    for x in values:
        for run in range(runs):
            times = come(state, x)
            yield x, run, times, state.choice(total, len(times), replace=False)


def _sweep(drawn, keep: list[float], seed: int, column: str) -> pd.DataFrame:
    """The runs at the values to keep, their times under the name ``column``."""
    data = datasets.load("ssjf-lmsys")
    parts = [
        part(data, rows, times, x, seed, run, column) for x, run, times, rows in drawn if x in keep
    ]
    return pd.concat(parts, ignore_index=True)


def part(data: Requests, rows, times, x, seed, run, column="arrived_at") -> pd.DataFrame:
    """The rows of one run, ``times`` under the name ``column``."""
    return pd.DataFrame(
        {
            "x": np.float32(x),
            "seed": np.int32(seed),
            "run": np.int16(run),
            column: times,
            "output_tokens": data.output_tokens[rows].astype(np.int16),
            "cls3": data.predictions["cls3"][rows].astype(np.int8),
            "cls5": data.predictions["cls5"][rows].astype(np.int8),
        }
    )
