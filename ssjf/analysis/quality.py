"""How good predicted output lengths are: arrays in, numbers out; a scheduler needs the order alone.

``truth`` is of shape (n,), in tokens above 0: whole lengths, or means of several answers. Every
function raises InputError, in one sentence, for input that is empty, not of one shape, not finite
or not above 0. A prediction that is the same for all orders nothing: its rank metrics and
``pearson`` are 0 by convention (``pairs_2x`` is 0.5). Where the truth itself does not vary, or no
pair is 2x apart, there is nothing to order or explain: NaN.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ssjf.analysis.ranks import (
    RANK_METRICS,
    above_zero,
    columns,
    correlation,
    increasing,
    pearson,
    rank_quality,
)
from ssjf.errors import InputError
from ssjf.request import PAPER_THRESHOLDS, FloatArray

ERROR_METRICS = ("mae", "rmse", "r2", "mae_log", "r2_log", "pearson")
CLASS_METRICS = ("accuracy", "macro_f1", "within_one_class")
METRICS = ERROR_METRICS + CLASS_METRICS + RANK_METRICS


def quality(
    truth: ArrayLike, predicted: ArrayLike, *, thresholds: Sequence[float] = PAPER_THRESHOLDS
) -> dict[str, float]:
    """All ``METRICS`` of predicted lengths in tokens, shape (n,).

    Those of ``error_quality``; of ``class_quality`` after both are binned (a length at a threshold
    belongs to the class above it); and of ``rank_quality``.
    """
    true, found = columns(truth=truth, predicted=predicted)
    errors = error_quality(true, found)
    edges = increasing("thresholds", thresholds)
    classes = (np.searchsorted(edges, lengths, side="right") for lengths in (true, found))
    return errors | class_quality(*classes) | rank_quality(true, found)


def error_quality(truth: ArrayLike, predicted: ArrayLike) -> dict[str, float]:
    """``ERROR_METRICS`` of predicted lengths in tokens, shape (n,).

    ``mae`` and ``rmse`` in tokens; ``r2`` = 1 - squared error / variance of this very truth, so
    that its mean scores 0; ``mae_log`` and ``r2_log`` of natural logarithms, with predictions
    below one token read as one; ``pearson`` of tokens.
    """
    true, found = columns(truth=truth, predicted=predicted)
    above_zero(true)
    log_true, log_found = np.log(true), np.log(np.maximum(found, 1))
    return {
        "mae": float(abs(found - true).mean()),
        "rmse": float(np.sqrt(((found - true) ** 2).mean())),
        "r2": _r2(true, found),
        "mae_log": float(abs(log_found - log_true).mean()),
        "r2_log": _r2(log_true, log_found),
        "pearson": correlation(pearson, true, found),
    }


def class_quality(truth: ArrayLike, predicted: ArrayLike) -> dict[str, float]:
    """``CLASS_METRICS`` of class ids (whole numbers in order of length), shape (n,) each.

    ``macro_f1`` is the plain mean of the F1 of the classes that occur in either column;
    ``within_one_class`` the share of ids that miss by at most 1.
    """
    true, found = columns(truth=truth, predicted=predicted)
    if np.any(true % 1) or np.any(found % 1):
        raise InputError("class ids must be whole numbers")
    ids, codes = np.unique(np.concatenate([true, found]), return_inverse=True)
    hits = np.bincount(codes[: len(true)][true == found], minlength=len(ids))
    return {
        "accuracy": float((true == found).mean()),
        "macro_f1": float((2 * hits / np.bincount(codes)).mean()),  # 2 TP / (true + predicted)
        "within_one_class": float((abs(true - found) <= 1).mean()),
    }


def _r2(truth: FloatArray, predicted: FloatArray) -> float:
    if np.ptp(truth) == 0:
        return math.nan
    return float(1 - ((predicted - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())


def interval_coverage(truth: ArrayLike, low: ArrayLike, high: ArrayLike) -> float:
    """The share of true lengths from ``low`` to ``high``, both included; shapes (n,), tokens."""
    true, lowest, highest = columns(truth=truth, low=low, high=high)
    above_zero(true)
    if (lowest > highest).any():
        raise InputError("low must not be above high; swap the ends of such intervals")
    return float(((lowest <= true) & (true <= highest)).mean())
