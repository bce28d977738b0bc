"""Seeded bootstrap intervals (95 %) over runs or requests, and batch means of one long run.

Intervals are the percentiles of resampled statistics (Efron 1979; Efron & Tibshirani 1993,
chapter 13). Statistics of two or more policies are paired: a resample draws runs, and takes
every policy's value of a drawn run, because all policies served the same requests (common
random numbers).

Statistics of runs are of ``RESAMPLES`` resamples. With ``groups``, ids of shape (n,), whole groups
(e.g. seeds) of equal size are drawn, for runs that are alike within a group; without, every run is
its own group.

Every function raises InputError for columns that are empty, not of one length, or hold values
that are not finite numbers, and for groups of unequal size. With one group there is nothing to
resample: low and high are NaN. So is all of a ratio over 0, and the interval of one that some
resample divides by 0.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from ssjf.config import count
from ssjf.errors import InputError
from ssjf.request import FloatArray, IntArray

LEVELS = [(1 - 0.95) / 2, (1 + 0.95) / 2]
RESAMPLES, SEED = 2000, 0  # of statistics of runs

Groups = ArrayLike | None


class Estimate(NamedTuple):
    """A statistic of the runs and its interval."""

    value: float
    low: float
    high: float


def interval(values: ArrayLike, groups: Groups = None) -> Estimate:
    """The mean of ``values``, shape (n,), one per run."""
    return _of_means(lambda x: x, groups, values=values)


def reduction(baseline: ArrayLike, treated: ArrayLike, groups: Groups = None) -> Estimate:
    """100 (1 - mean(treated) / mean(baseline)), in percent."""
    return _of_means(lambda b, t: 100 * (1 - t / b), groups, baseline=baseline, treated=treated)


def factor(baseline: ArrayLike, treated: ArrayLike, groups: Groups = None) -> Estimate:
    """mean(treated) / mean(baseline)."""
    return _of_means(lambda b, t: t / b, groups, baseline=baseline, treated=treated)


def difference(baseline: ArrayLike, treated: ArrayLike, groups: Groups = None) -> Estimate:
    """mean(treated - baseline), in the values' unit."""
    return _of_means(lambda b, t: t - b, groups, baseline=baseline, treated=treated)


def captured(fcfs: ArrayLike, policy: ArrayLike, oracle: ArrayLike) -> Estimate:
    """The share of the oracle's gain that a policy has; NaN where the oracle gains nothing.

    (mean(fcfs) - mean(policy)) / (mean(fcfs) - mean(oracle)).
    """
    return _of_means(
        lambda f, p, o: (f - p) / (f - o), None, fcfs=fcfs, policy=policy, oracle=oracle
    )


def statistic(
    function: Callable[[FloatArray], ArrayLike], values: ArrayLike, groups: Groups = None
) -> Estimate:
    """Any statistic of ``values``, shape (..., n), whose last axis is the runs.

    ``function`` takes (r, ..., n), r resamples at once, and returns (r,).
    """
    values = _finite("values", values)
    picks = _picks(values.shape[-1], groups)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(np.asarray(function(values[None]))[0])
        others = np.asarray(function(np.moveaxis(values[..., picks], -2, 0)))
    return _estimate(value, others)


def _estimate(value: float, others: FloatArray) -> Estimate:
    value = value if math.isfinite(value) else math.nan
    if not len(others) or not np.isfinite(others).all():
        return Estimate(value, math.nan, math.nan)
    low, high = np.quantile(others, LEVELS)
    return Estimate(value, float(low), float(high))


def batch_means(values: ArrayLike, batches: int = 30) -> FloatArray:
    """The means of consecutive, equally long batches of one long run, shape (batches,).

    Long batches are nearly independent, so they can stand as the runs of ``interval``. What
    does not fill a batch is dropped from the front, where the run is least steady.
    """
    values, batches = _finite("values", values), count("batches", batches)
    length = len(values) // batches
    if length == 0:
        raise InputError(f"{len(values)} values do not fill {batches} batches")
    return values[len(values) - batches * length :].reshape(batches, length).mean(axis=1)


def resampled(
    measure: Callable[[IntArray], Mapping[str, float]],
    n: int,
    groups: ArrayLike | None = None,
    resamples: int = 1000,
) -> pd.DataFrame:
    """Estimate intervals of ``measure(rows)``, metrics of a subset of n requests.

    A resample draws n requests with replacement or, with ``groups``, ids of shape (n,), as many
    groups (conversations, of any size) as there are, each with all its requests. With one group,
    and where some resample has no finite value, low and high are NaN.

    Returns
    -------
    Columns metric, value, low, high.
    """
    labels = np.arange(n) if groups is None else one_each("groups", groups, n)
    value = measure(np.arange(n))
    draws = _draws(labels, count("resamples", resamples), np.random.default_rng(0))
    measured = [list(measure(rows).values()) for rows in draws]
    limits = np.full((2, len(value)), np.nan)
    if measured:  # a value that is not finite makes its column's limits NaN
        kept = np.where(np.isfinite(measured).all(axis=0), measured, np.nan)
        limits = np.quantile(kept, LEVELS, axis=0)
    names, values = list(value), list(value.values())
    return pd.DataFrame({"metric": names, "value": values, "low": limits[0], "high": limits[1]})


def _draws(labels: NDArray, resamples: int, rng: Generator) -> Iterator[IntArray]:
    """The rows of each resample; none if there is one group."""
    sizes = np.unique(labels, return_counts=True)[1]
    ordered = np.argsort(labels, kind="stable")
    starts = np.cumsum(sizes) - sizes
    for _ in range(resamples if len(sizes) > 1 else 0):
        drawn = rng.integers(0, len(sizes), len(sizes))
        taken = sizes[drawn]
        first = np.repeat(starts[drawn] - (np.cumsum(taken) - taken), taken)
        yield ordered[first + np.arange(len(first))]


def _of_means(combine: Callable[..., FloatArray], groups: Groups, **columns: ArrayLike) -> Estimate:
    """``statistic`` of the columns' means."""
    arrays = [_finite(name, values) for name, values in columns.items()]
    if any(array.shape != (arrays[0].size,) for array in arrays):
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise InputError(f"{', '.join(columns)} must be a number per run each, not {shapes}")
    values = np.stack(arrays)
    picks = _picks(values.shape[1], groups)
    # Several columns are summed run by run: a tenth of the time of ``values[..., picks]``, whose
    # sums, to the last digit, these are.
    alone = len(values) == 1
    drawn = values.take(picks if alone else picks.T, axis=1).mean(axis=2 if alone else 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _estimate(float(combine(*values.mean(axis=1))), combine(*drawn))


def _picks(n: int, groups: Groups) -> IntArray:
    """The runs that each resample draws, shape (resamples, n); none if there is one group."""
    if groups is None:
        return _picks_of_runs(n)
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise InputError(f"groups must be {n} ids, one per run, not of shape {labels.shape}")
    names, sizes = np.unique(labels, return_counts=True)
    if sizes.min() != sizes.max():
        raise InputError(f"groups hold from {sizes.min()} to {sizes.max()} runs, not equally many")
    runs_of = np.argsort(labels, kind="stable").reshape(len(names), -1)
    return runs_of[_picks_of_runs(len(names))].reshape(-1, n)


@lru_cache(8)
def _picks_of_runs(n: int) -> IntArray:
    rng = np.random.default_rng(SEED)
    return rng.integers(0, n, (RESAMPLES, n)) if n > 1 else np.empty((0, n), np.int64)


def _finite(name: str, values: ArrayLike) -> FloatArray:
    array = np.asarray(values, np.float64)
    if array.ndim == 0 or not array.size:
        raise InputError(f"{name} must hold at least one number, one per run")
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise InputError(
            f"{name} holds {bad} values of {array.size} that are not finite numbers; "
            "leave those runs out of every column"
        )
    return array


def one_each(name: str, column: ArrayLike, n: int) -> NDArray:
    """The column, of shape (n,) with n > 0, or an InputError."""
    array = np.asarray(column)
    if n == 0:
        raise InputError(f"{name} is empty; quality needs at least one request")
    if array.shape != (n,):
        raise InputError(f"{name} must be {n} values, one per request, not of shape {array.shape}")
    return array
