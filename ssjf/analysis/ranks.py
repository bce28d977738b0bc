"""How rightly a score orders true lengths, and how rightly any could.

``truth`` is of shape (n,), in tokens above 0; bad input and what is undefined as in
``ssjf.analysis.quality``.
"""

import math
from collections.abc import Callable
from itertools import combinations
from statistics import fmean

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ssjf.errors import InputError, unknown
from ssjf.request import FloatArray, IntArray

RANK_METRICS = ("kendall_tau_b", "spearman", "pairs_2x")


def rank_quality(truth: ArrayLike, score: ArrayLike) -> dict[str, float]:
    """``RANK_METRICS`` of any score, shape (n,), larger meaning longer: tokens, class ids, ranks.

    ``kendall_tau_b`` and ``spearman`` correct for ties as SciPy does. ``pairs_2x`` is the share
    of the pairs whose true lengths are at least 2x apart that the score orders rightly; a tie
    counts half. It is exact, in O(n log n).
    """
    return {name: rank(name, truth, score) for name in RANK_METRICS}


def rank(name: str, truth: ArrayLike, score: ArrayLike) -> float:
    """One of ``RANK_METRICS``."""
    if name not in RANK_METRICS:
        raise unknown("rank metric", name, RANK_METRICS)
    true, found = columns(truth=truth, score=score)
    above_zero(true)
    if name == "pairs_2x":
        return _pairs_2x(true, found)
    return correlation({"kendall_tau_b": _kendall, "spearman": _spearman}[name], true, found)


def noise_ceiling(draws: ArrayLike) -> dict[str, float]:
    """How well a prompt-only predictor could order single answers; ``draws`` is (n prompts, k).

    It assumes that the k >= 2 answers to a prompt are independent draws of one model at one
    temperature. ``pair_spearman`` and ``pair_kendall`` are means over pairs of draws: what one
    earlier answer predicts of another, with noise on both sides, so that a good predictor can
    beat them. ``others_spearman`` has the mean of the other k - 1 draws as the predictor: nearer
    to the ceiling the larger k. ``limit_spearman`` = sqrt(pair_spearman) is the ceiling itself if
    a draw is a score of the prompt plus noise that is alike for all prompts (attenuation:
    Spearman 1904): an estimate, not a bound. InputError for a draw equal for all prompts.
    """
    lengths = np.asarray(draws, np.float64)
    if lengths.ndim != 2 or lengths.shape[1] < 2:
        raise InputError(f"draws must be (prompts, at least 2 answers), not {lengths.shape}")
    above_zero(columns(draws=lengths.ravel())[0], "draws")
    if not np.ptp(lengths, axis=0).all():
        raise InputError("draws must differ from prompt to prompt; nothing can be ordered")
    k = lengths.shape[1]
    others = (lengths.sum(axis=1, keepdims=True) - lengths) / (k - 1)
    pairs = list(combinations(lengths.T, 2))
    pair = fmean(_spearman(a, b) for a, b in pairs)
    return {
        "pair_spearman": pair,
        "pair_kendall": fmean(_kendall(a, b) for a, b in pairs),
        "others_spearman": fmean(map(_spearman, lengths.T, others.T)),
        "limit_spearman": math.sqrt(max(pair, 0.0)),
    }


def correlation(
    measure: Callable[[FloatArray, FloatArray], float], truth: FloatArray, score: FloatArray
) -> float:
    """The correlation by the conventions for a constant truth (NaN) and a constant score (0)."""
    if np.ptp(truth) == 0:
        return math.nan
    return measure(truth, score) if np.ptp(score) else 0.0


def pearson(a: FloatArray, b: FloatArray) -> float:
    """Of two columns, shape (n,), neither of which is constant."""
    return float(np.corrcoef(a, b)[0, 1])


def _spearman(a: FloatArray, b: FloatArray) -> float:
    return pearson(_mean_ranks(a), _mean_ranks(b))


def _mean_ranks(values: FloatArray) -> FloatArray:
    """Ranks from 1; equal values share the mean of their ranks."""
    _, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[codes]


def _kendall(a: FloatArray, b: FloatArray) -> float:
    from scipy.stats import kendalltau  # takes long to import: only where it is asked

    return float(kendalltau(a, b).statistic)


def _pairs_2x(truth: FloatArray, score: FloatArray) -> float:
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
    """How many of ``codes[:ends[i]]`` are below ``bounds[i]``, for every i; codes from 0.

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


def columns(**given: ArrayLike) -> list[FloatArray]:
    """The given columns as floats, all (n,) of finite numbers with n > 0, or an InputError."""
    n = np.size(next(iter(given.values())))
    arrays = [one_each(name, column, n).astype(np.float64) for name, column in given.items()]
    for name, array in zip(given, arrays, strict=True):
        bad = int((~np.isfinite(array)).sum())
        if bad:
            raise InputError(f"{name} holds {bad} values of {n} that are not finite numbers")
    return arrays


def one_each(name: str, column: ArrayLike, n: int) -> NDArray:
    """The column, of shape (n,) with n > 0, or an InputError."""
    array = np.asarray(column)
    if n == 0:
        raise InputError(f"{name} is empty; quality needs at least one request")
    if array.shape != (n,):
        raise InputError(f"{name} must be {n} values, one per request, not of shape {array.shape}")
    return array


def increasing(name: str, values: ArrayLike, at_least: int = 1) -> FloatArray:
    """The values, shape (k,) with k >= ``at_least``, strictly increasing, or an InputError."""
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or len(array) < at_least or not (np.diff(array) > 0).all():
        raise InputError(
            f"{name} must be at least {at_least} numbers that increase, not {array.tolist()}"
        )
    return array


def above_zero(lengths: FloatArray, name: str = "truth") -> None:
    """An InputError unless all lengths are above 0."""
    bad = int((lengths <= 0).sum())
    if bad:
        raise InputError(
            f"{name} holds {bad} lengths of {len(lengths)} that are not above 0 tokens"
        )
