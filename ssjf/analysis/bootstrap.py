"""Seeded bootstrap intervals over replicates (runs), and batch means of one long run.

Intervals are the percentiles of resampled statistics (Efron 1979; Efron & Tibshirani 1993,
chapter 13). Statistics of two or more policies are paired: a resample draws runs, and takes
every policy's value of a drawn run, because all policies served the same requests (common
random numbers).

All take the options ``level=0.95``, ``resamples=2000``, ``seed=0`` (or a Generator) and
``groups=None``. With ``groups``, ids of shape (n,), whole groups (e.g. seeds) of equal size
are drawn, for runs that are alike within a group; without, every run is its own group.

Every function raises InputError for columns that are empty, not of one length, or hold values
that are not finite numbers, for groups of unequal size, and for a level or a number of
resamples out of range. With one group there is nothing to resample: low and high are NaN. So
is all of a ratio over 0, and the interval of one that some resample divides by 0.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ssjf.config import count
from ssjf.errors import InputError, unknown
from ssjf.request import FloatArray, IntArray


class Estimate(NamedTuple):
    """A statistic of the runs and its interval."""

    value: float
    low: float
    high: float


_STATISTICS: dict[str, Callable[..., NDArray]] = {"mean": np.mean, "median": np.median}


def interval(values: ArrayLike, statistic: str = "mean", **options: Any) -> Estimate:
    """The ``mean`` or ``median`` of ``values``, shape (n,), one per run."""
    if statistic not in _STATISTICS:
        raise unknown("statistic", statistic, _STATISTICS)
    function = _STATISTICS[statistic]
    return _of_means(lambda x: x, {"values": values}, function, **options)


def reduction(baseline: ArrayLike, treated: ArrayLike, **options: Any) -> Estimate:
    """100 (1 - mean(treated) / mean(baseline)), in percent."""
    columns = {"baseline": baseline, "treated": treated}
    return _of_means(lambda b, t: 100 * (1 - t / b), columns, **options)


def factor(baseline: ArrayLike, treated: ArrayLike, **options: Any) -> Estimate:
    """mean(treated) / mean(baseline)."""
    columns = {"baseline": baseline, "treated": treated}
    return _of_means(lambda b, t: t / b, columns, **options)


def difference(baseline: ArrayLike, treated: ArrayLike, **options: Any) -> Estimate:
    """mean(treated - baseline), in the values' unit."""
    columns = {"baseline": baseline, "treated": treated}
    return _of_means(lambda b, t: t - b, columns, **options)


def captured(fcfs: ArrayLike, policy: ArrayLike, oracle: ArrayLike, **options: Any) -> Estimate:
    """The share of the oracle's gain that a policy has; NaN where the oracle gains nothing.

    (mean(fcfs) - mean(policy)) / (mean(fcfs) - mean(oracle)).
    """
    columns = {"fcfs": fcfs, "policy": policy, "oracle": oracle}
    return _of_means(lambda f, p, o: (f - p) / (f - o), columns, **options)


def statistic(
    function: Callable[[FloatArray], ArrayLike],
    values: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int | np.random.Generator = 0,
    groups: ArrayLike | None = None,
) -> Estimate:
    """Any statistic of ``values``, shape (..., n), whose last axis is the runs.

    ``function`` takes (r, ..., n), r resamples at once, and returns (r,).
    """
    if not 0 < level < 1:
        raise InputError(f"level is {level}; it must be between 0 and 1")
    values = _finite("values", values)
    picks = _picks(values.shape[-1], groups, count("resamples", resamples), seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(np.asarray(function(values[None]))[0])
        resampled = np.asarray(function(np.moveaxis(values[..., picks], -2, 0)))
    value = value if math.isfinite(value) else math.nan
    if not len(resampled) or not np.isfinite(resampled).all():
        return Estimate(value, math.nan, math.nan)
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
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


def _of_means(
    combine: Callable[..., FloatArray],
    columns: dict[str, ArrayLike],
    mean: Callable[..., NDArray] = np.mean,
    **options: Any,
) -> Estimate:
    """``statistic`` of the columns' means."""
    arrays = [_finite(name, values) for name, values in columns.items()]
    if any(array.shape != (arrays[0].size,) for array in arrays):
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise InputError(f"{', '.join(columns)} must be a number per run each, not {shapes}")
    # (r, columns, n) -> one (r,) per column
    return statistic(lambda v: combine(*mean(v, axis=-1).T), np.stack(arrays), **options)


def _picks(n: int, groups: ArrayLike | None, resamples: int, seed) -> IntArray:
    """The runs that each resample draws, shape (resamples, n); none if there is one group."""
    labels = np.arange(n) if groups is None else np.asarray(groups)
    if labels.shape != (n,):
        raise InputError(f"groups must be {n} ids, one per run, not of shape {labels.shape}")
    names, sizes = np.unique(labels, return_counts=True)
    if sizes.min() != sizes.max():
        raise InputError(f"groups hold from {sizes.min()} to {sizes.max()} runs, not equally many")
    if len(names) == 1:
        return np.empty((0, n), np.int64)
    runs_of = np.argsort(labels, kind="stable").reshape(len(names), -1)
    drawn = np.random.default_rng(seed).integers(0, len(names), (resamples, len(names)))
    return runs_of[drawn].reshape(resamples, n)


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
