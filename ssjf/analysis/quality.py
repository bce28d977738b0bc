"""How good predicted output lengths are: arrays in, numbers out; a scheduler needs the order alone.

``truth`` is of shape (n,), in tokens above 0: whole lengths, or means of several answers. Every
function raises InputError, in one sentence, for input that is empty, not of one shape, not finite
or not above 0. A prediction that is the same for all orders nothing: its correlations are 0 by
convention, its ``pairs_2x`` is 0.5. Where the truth itself does not vary, or no pair is 2x apart,
there is nothing to order or explain: NaN.
"""

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import kendalltau

from ssjf.analysis.bootstrap import one_each, resampled
from ssjf.errors import InputError, unknown
from ssjf.request import PAPER_THRESHOLDS, FloatArray, IntArray

ERROR_METRICS = ("mae", "rmse", "r2")
CLASS_METRICS = ("accuracy", "macro_f1", "precision", "recall", "within_one_class")
RANK_METRICS = ("kendall_tau_b", "spearman", "pairs_2x")
METRICS = ERROR_METRICS + CLASS_METRICS + RANK_METRICS


def quality(
    truth: ArrayLike, predicted: ArrayLike, names: Sequence[str] = METRICS
) -> dict[str, float]:
    """Compute metrics of predicted lengths in tokens, shape (n,); rank metrics take any score.

    ``mae`` and ``rmse`` are in tokens; ``r2`` = 1 - squared error / variance of this truth,
    so that predicting its mean scores 0. ``CLASS_METRICS`` bin lengths at the SSJF paper's
    thresholds. ``kendall_tau_b`` and ``spearman`` correct for ties as SciPy does. ``pairs_2x`` is
    the share of the pairs whose true lengths are at least 2x apart that the prediction orders
    rightly; a tie counts half.
    """
    true, guess = _columns(truth=truth, predicted=predicted)
    _above_zero("truth", true)
    values: dict[str, float] = {}
    if not {*CLASS_METRICS}.isdisjoint(names):
        bins = [np.searchsorted(PAPER_THRESHOLDS, each, side="right") for each in (true, guess)]
        values |= class_quality(*bins)
    for name in names:
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
        if name not in CLASS_METRICS:
            values[name] = _MEASURES[name](true, guess)
    return {name: values[name] for name in names}


def with_intervals(
    truth: ArrayLike, predicted: ArrayLike, names: Sequence[str] = METRICS, resamples: int = 1000
) -> pd.DataFrame:
    """``quality`` with bootstrap intervals over requests: columns metric, value, low, high."""
    true, guess = _columns(truth=truth, predicted=predicted)

    def measure(rows: IntArray) -> dict[str, float]:
        return quality(true[rows], guess[rows], names)

    return resampled(measure, len(true), resamples=resamples)


def class_quality(truth: ArrayLike, predicted: ArrayLike) -> dict[str, float]:
    """``CLASS_METRICS`` of class ids (whole numbers in order of length), shape (n,) each.

    ``macro_f1`` is the plain mean of the F1 of the classes that occur in either column;
    ``precision`` and ``recall`` those over the classes that occur among the true ones, 0 where none
    is predicted; ``within_one_class`` the share of ids that miss by at most 1.
    """
    true, guess = _columns(truth=truth, predicted=predicted)
    if np.any(true % 1) or np.any(guess % 1):
        raise InputError("class ids must be whole numbers")
    ids, codes = np.unique(np.concatenate([true, guess]), return_inverse=True)
    known, guessed = (np.bincount(part, minlength=len(ids)) for part in np.split(codes, 2))
    hits = np.bincount(codes[: len(true)][true == guess], minlength=len(ids))
    there = known > 0
    return {
        "accuracy": float((true == guess).mean()),
        "macro_f1": float((2 * hits / (known + guessed)).mean()),
        "precision": float((hits / np.maximum(guessed, 1))[there].mean()),
        "recall": float((hits[there] / known[there]).mean()),
        "within_one_class": float((abs(true - guess) <= 1).mean()),
    }


def interval_coverage(truth: ArrayLike, low: ArrayLike, high: ArrayLike) -> float:
    """The share of true lengths from ``low`` to ``high``, both included; shapes (n,), tokens."""
    true, lowest, highest = _columns(truth=truth, low=low, high=high)
    _above_zero("truth", true)
    if (lowest > highest).any():
        raise InputError("low must not be above high; swap the ends of such intervals")
    return float(((lowest <= true) & (true <= highest)).mean())


def noise_ceiling(draws: ArrayLike) -> float:
    """Estimate how well a prompt-only predictor could order single answers (mean Spearman's ρ).

    ``draws`` (n prompts, k >= 2 answers) are taken as independent draws of one model at one
    temperature; each is correlated with the mean of the other k - 1. That mean is noisy too, so
    a good predictor can beat it: it is nearer to the ceiling the larger k.
    """
    lengths = np.asarray(draws, np.float64)
    if lengths.ndim != 2 or lengths.shape[1] < 2:
        raise InputError(f"draws must be (prompts, at least 2 answers), not {lengths.shape}")
    _above_zero("draws", _columns(draws=lengths.ravel())[0])
    if not np.ptp(lengths, axis=0).all():
        raise InputError("draws must differ from prompt to prompt; nothing can be ordered")
    others = (lengths.sum(axis=1, keepdims=True) - lengths) / (lengths.shape[1] - 1)
    return fmean(map(_spearman, lengths.T, others.T))


def _mae(truth: FloatArray, predicted: FloatArray) -> float:
    return float(abs(predicted - truth).mean())


def _rmse(truth: FloatArray, predicted: FloatArray) -> float:
    return float(np.sqrt(((predicted - truth) ** 2).mean()))


def _r2(truth: FloatArray, predicted: FloatArray) -> float:
    if np.ptp(truth) == 0:
        return math.nan
    return float(1 - ((predicted - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())


def _spearman(truth: FloatArray, score: FloatArray) -> float:
    if np.ptp(truth) == 0:
        return math.nan
    return float(np.corrcoef(_ranks(truth), _ranks(score))[0, 1]) if np.ptp(score) else 0.0


def _ranks(values: FloatArray) -> FloatArray:
    """Ranks from 1, equal values sharing their mean: SciPy's, in a third of its time."""
    codes = np.unique(values, return_inverse=True)[1]
    counts = np.bincount(codes)
    return (np.cumsum(counts) - (counts - 1) / 2)[codes]


def _kendall(truth: FloatArray, score: FloatArray) -> float:
    if np.ptp(truth) == 0:
        return math.nan
    return float(kendalltau(truth, score).statistic) if np.ptp(score) else 0.0


def _pairs_2x(truth: FloatArray, score: FloatArray) -> float:
    """Exact, in O(n log n)."""
    order = np.argsort(truth, kind="stable")
    shorter = np.searchsorted(truth[order], truth / 2, side="right")  # at most half as long
    pairs = int(shorter.sum())
    if not pairs:
        return math.nan
    codes = np.unique(score, return_inverse=True)[1]
    below = _count_below(codes[order], shorter, codes)
    below_or_tied = _count_below(codes[order], shorter, codes + 1)
    return float((below + below_or_tied).sum() / (2 * pairs))


def _count_below(codes: IntArray, ends: IntArray, bounds: IntArray) -> IntArray:
    """Count, for every i, the ``codes[:ends[i]]`` (whole numbers from 0) below ``bounds[i]``.

    A wavelet matrix (Claude & Navarro 2012): bit by bit from the top, the codes are split into
    those with 0 and those with 1, and each range follows the bit of its bound.
    """
    counts, starts = np.zeros(len(ends), np.int64), np.zeros(len(ends), np.int64)
    for bit in reversed(range(int(bounds.max()).bit_length())):
        ones, up = (codes >> bit) & 1 == 1, (bounds >> bit) & 1 == 1
        zeros = np.concatenate([[0], np.cumsum(~ones)])  # among the first 0 … n codes
        low, high = zeros[starts], zeros[ends]
        counts += np.where(up, high - low, 0)
        starts = np.where(up, zeros[-1] + starts - low, low)
        ends = np.where(up, zeros[-1] + ends - high, high)
        codes = np.concatenate([codes[~ones], codes[ones]])
    return counts


_MEASURES = {"mae": _mae, "rmse": _rmse, "r2": _r2, "kendall_tau_b": _kendall,
             "spearman": _spearman, "pairs_2x": _pairs_2x}  # fmt: skip


def _columns(**given: ArrayLike) -> list[FloatArray]:
    """The given columns as floats, all (n,) of finite numbers with n > 0, or an InputError."""
    n = np.size(next(iter(given.values())))
    arrays = [one_each(name, column, n).astype(np.float64) for name, column in given.items()]
    for name, array in zip(given, arrays, strict=True):
        bad = int((~np.isfinite(array)).sum())
        if bad:
            raise InputError(f"{name} holds {bad} values of {n} that are not finite numbers")
    return arrays


def _above_zero(name: str, lengths: FloatArray) -> None:
    bad = int((lengths <= 0).sum())
    if bad:
        raise InputError(
            f"{name} holds {bad} lengths of {len(lengths)} that are not above 0 tokens"
        )
