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
import pandas as pd
from numpy.typing import ArrayLike

from ssjf.analysis.quality_checks import above_zero, banded, columns, increasing, one_each
from ssjf.analysis.quality_ranks import RANK_METRICS, correlation, pearson, rank_quality
from ssjf.errors import InputError
from ssjf.request import PAPER_THRESHOLDS, FloatArray

ERROR_METRICS = ("mae", "rmse", "r2", "mae_log", "r2_log", "pearson")
CLASS_METRICS = ("accuracy", "macro_f1", "within_one_class")
METRICS = ERROR_METRICS + CLASS_METRICS + RANK_METRICS
BANDS = (0.0, *PAPER_THRESHOLDS, math.inf)
"""Edges in tokens: the classes of the SSJF paper as bands of length."""


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


def by_band(truth: ArrayLike, predicted: ArrayLike, edges: Sequence[float] = BANDS) -> pd.DataFrame:
    """``quality`` per band of true length: columns from_tokens, below_tokens, n and ``METRICS``.

    A band holds true lengths from one edge to below the next; one without requests has n = 0 and
    NaN, and a length outside all edges is in no band. Within a band the metrics are conditional
    on the truth: ranks and r2 are low for any predictor where lengths hardly differ, and
    ``accuracy`` over bands that are classes is the recall of the class.
    """
    true, found = columns(truth=truth, predicted=predicted)
    return pd.DataFrame(
        [band | _row(true[rows], found[rows]) for band, rows in banded(true, edges)]
    )


def by_group(truth: ArrayLike, predicted: ArrayLike, labels: ArrayLike) -> pd.DataFrame:
    """``quality`` per label, shape (n,), e.g. of data sets: columns group, n and ``METRICS``."""
    true, found = columns(truth=truth, predicted=predicted)
    names, codes = np.unique(one_each("labels", labels, len(true)), return_inverse=True)
    masks = {name: codes == code for code, name in enumerate(names.tolist())}
    return pd.DataFrame(
        [{"group": name} | _row(true[rows], found[rows]) for name, rows in masks.items()]
    )


def _row(truth: FloatArray, predicted: FloatArray) -> dict[str, float]:
    measured = quality(truth, predicted) if len(truth) else dict.fromkeys(METRICS, math.nan)
    return {"n": len(truth), **measured}


def _r2(truth: FloatArray, predicted: FloatArray) -> float:
    if np.ptp(truth) == 0:
        return math.nan
    return float(1 - ((predicted - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())
