"""Predicted intervals and quantiles: are they right? And how sure are the metrics of quality?

``truth`` is of shape (n,), in tokens above 0. Predicted quantiles are of shape (n, k), in tokens,
for ``levels`` of shape (k,) that increase strictly between 0 and 1. Bad input raises InputError,
as in ``ssjf.study.quality``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from ssjf.errors import InputError, unknown
from ssjf.proxy.predictors import PAPER_THRESHOLDS
from ssjf.request import FloatArray, IntArray
from ssjf.study.quality import (
    BANDS,
    METRICS,
    RANK_METRICS,
    above_zero,
    banded,
    columns,
    increasing,
    one_each,
    quality,
    rank_quality,
)
from ssjf.workload.options import count


def interval_coverage(truth: ArrayLike, low: ArrayLike, high: ArrayLike) -> float:
    """The share of true lengths from ``low`` to ``high``, both included; shapes (n,), tokens."""
    return float(_covered(*_interval(truth, low, high)).mean())


def coverage_by_band(
    truth: ArrayLike, low: ArrayLike, high: ArrayLike, bands: Sequence[float] = BANDS
) -> pd.DataFrame:
    """``interval_coverage`` per band of true length, with the mean width of the intervals.

    Columns from_tokens, below_tokens, n, coverage and width (tokens); the bands are those of
    ``quality.by_band``. Intervals that are right on the whole need not be right in every
    band: the bands are made by the truth, which they do not know.
    """
    true, lowest, highest = _interval(truth, low, high)
    per_request = pd.DataFrame(
        {"coverage": _covered(true, lowest, highest), "width": highest - lowest}, dtype=np.float64
    )
    return pd.DataFrame(
        band | {"n": int(rows.sum())} | dict(per_request[rows].mean())
        for band, rows in banded(true, bands)
    )


def pinball_loss(truth: ArrayLike, quantiles: ArrayLike, levels: ArrayLike) -> FloatArray:
    """The mean pinball loss of each level, shape (k,), in tokens; least at the true quantile.

    level × (truth - quantile) above the quantile, (1 - level) × (quantile - truth) below it
    (Koenker & Bassett 1978). Quantiles may cross.
    """
    true, found, at = _quantiles(truth, quantiles, levels)
    short = true[:, None] - found
    return np.maximum(at * short, (at - 1) * short).mean(axis=0)


def crps(truth: ArrayLike, quantiles: ArrayLike, levels: ArrayLike) -> float:
    """Continuous ranked probability score, tokens: twice the mean pinball loss over levels.

    A level weighs the stretch of (0, 1) that is nearest to it. For levels (i - 1/2) / k it is
    exactly the CRPS of k equally likely lengths (Bröcker 2012), E|X - y| - E|X - X'| / 2, so that
    one length at level 0.5 scores its absolute error; other levels leave the tails coarse.
    """
    at = _levels(levels)
    stretches = np.diff(np.concatenate([[0.0], (at[1:] + at[:-1]) / 2, [1.0]]))
    return float(2 * stretches @ pinball_loss(truth, quantiles, at))


def pit(
    truth: ArrayLike, quantiles: ArrayLike, levels: ArrayLike, seed: int | Generator = 0
) -> FloatArray:
    """The level at which each true length lies in its prediction, shape (n,), from 0 to 1.

    Probability integral transform: uniform if the predictions are calibrated, heaped at both ends
    if they are too narrow. Between two levels (0 and 1 are the outermost) the place is drawn
    uniformly (seeded; randomised as for counts, Czado, Gneiting & Held 2009), so a histogram shows
    no more than its levels. Quantiles must not cross.
    """
    true, found, at = _quantiles(truth, quantiles, levels)
    if (np.diff(found, axis=1) < 0).any():
        raise InputError(
            "quantiles must not fall from one level to the next; sort them per request"
        )
    edges = np.concatenate([[0.0], at, [1.0]])
    below = edges[(found < true[:, None]).sum(axis=1)]
    above = edges[(found <= true[:, None]).sum(axis=1) + 1]
    return np.random.default_rng(seed).uniform(below, above)


def with_intervals(
    truth: ArrayLike,
    predicted: ArrayLike,
    names: Sequence[str] | None = None,
    groups: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int | Generator = 0,
    *,
    level: float = 0.95,
    thresholds: Sequence[float] = PAPER_THRESHOLDS,
) -> pd.DataFrame:
    """Metrics of ``quality`` with bootstrap intervals: columns metric, value, low, high.

    ``names`` are some of ``quality.METRICS``, by default all; rank metrics alone take scores of
    any unit. The intervals are those of ``resampled``: of the test requests, not of training.
    """
    wanted = METRICS if names is None else tuple(names)
    for name in wanted:
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
    true, found = columns(truth=truth, predicted=predicted)

    def measure(rows: IntArray) -> Mapping[str, float]:
        if set(wanted) <= set(RANK_METRICS):
            return rank_quality(true[rows], found[rows])
        return quality(true[rows], found[rows], thresholds=thresholds)

    options: dict[str, Any] = {"resamples": resamples, "seed": seed, "level": level}
    table = resampled(measure, len(true), groups, **options).set_index("metric")
    return table.loc[list(wanted)].reset_index()


def resampled(
    measure: Callable[[IntArray], Mapping[str, float]],
    n: int,
    groups: ArrayLike | None = None,
    *,
    resamples: int = 1000,
    seed: int | Generator = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """Percentile bootstrap intervals of ``measure(rows)``: columns metric, value, low, high.

    A resample draws n of the n requests, or with ``groups``, ids of shape (n,), as many groups
    (conversations, of any size) as there are, each with all its requests. With one group, and
    where some resample has no finite value, low and high are NaN.
    """
    if not 0 < level < 1:
        raise InputError(f"level is {level}; it must be between 0 and 1")
    labels = np.arange(n) if groups is None else one_each("groups", groups, n)
    value = measure(np.arange(n))
    draws = _draws(labels, count("resamples", resamples), np.random.default_rng(seed))
    found = [list(measure(rows).values()) for rows in draws]
    limits = np.full((2, len(value)), np.nan)
    if found:  # a value that is not finite makes its column's limits NaN
        kept = np.where(np.isfinite(found).all(axis=0), found, np.nan)
        limits = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2], axis=0)
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


def _interval(truth: ArrayLike, low: ArrayLike, high: ArrayLike) -> list[FloatArray]:
    true, lowest, highest = columns(truth=truth, low=low, high=high)
    above_zero(true)
    if (lowest > highest).any():
        raise InputError("low must not be above high; swap the ends of such intervals")
    return [true, lowest, highest]


def _covered(truth: FloatArray, low: FloatArray, high: FloatArray) -> NDArray[np.bool_]:
    return (low <= truth) & (truth <= high)


def _levels(levels: ArrayLike) -> FloatArray:
    at = increasing("levels", levels)
    if not 0 < at[0] <= at[-1] < 1:
        raise InputError(f"levels must be between 0 and 1, not {at.tolist()}")
    return at


def _quantiles(truth: ArrayLike, quantiles: ArrayLike, levels: ArrayLike) -> list[FloatArray]:
    (true,), at = columns(truth=truth), _levels(levels)
    above_zero(true)
    found = np.asarray(quantiles, np.float64)
    if found.shape != (len(true), len(at)):
        raise InputError(
            f"quantiles must be ({len(true)} requests, {len(at)} levels), not {found.shape}"
        )
    columns(quantiles=found.ravel())
    return [true, found, at]
