"""Predicted intervals and quantiles: are they right?

``truth`` is of shape (n,), in tokens above 0. Predicted quantiles are of shape (n, k), in tokens,
for ``levels`` of shape (k,) that increase strictly between 0 and 1. Bad input raises InputError,
as in ``ssjf.analysis.quality``.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from ssjf.analysis.quality import BANDS
from ssjf.analysis.quality_checks import above_zero, banded, columns, increasing
from ssjf.errors import InputError
from ssjf.request import FloatArray


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
