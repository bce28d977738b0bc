"""A ridge on finished requests, and its mixture with the proxy that was trained before.

Answers that were cut off at a limit count as long as they were, or as was predicted if that is
longer. All lengths are logarithms of tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from ssjf.proxy.light import features
from ssjf.request import FloatArray

BUCKETS = 2**17
PENALTY, TOLERANCE = 1.0, 1e-3  # of the ridge
IMPORTANCE = np.array([0.05] * features.COUNTS + [1.0])  # of counts and prediction; n-grams: 1
WEIGHTS = np.linspace(0, 1, 5)  # that the ridge may have in the mixture
FEWEST = 10  # requests that the ridge has predicted before it counts
CERTAINTY = 3.0  # how fast the one that orders better takes over
PRIOR, OF_LEVEL = 20.0, 5.0  # requests that weigh as much as the trained proxy's scale, and level
LEAST_SLOPE, LEAST_SPREAD = 0.1, 1e-3
ROUNDS = 2  # fits in turn, where answers were cut off


class Reading(NamedTuple):
    """What a prompt's prediction was made of.

    ids: hashed n-grams. counts: plain ones. shipped: by the proxy that was trained before.
    refitted: by the ridge, NaN while there is none. predicted: by both together.
    """

    ids: np.ndarray
    counts: np.ndarray
    shipped: float
    refitted: float = np.nan
    predicted: float = np.nan


class Finished(NamedTuple):
    """A finished request."""

    reading: Reading
    log_tokens: float
    cut_off: bool


def _uncut(rows: Sequence[Finished], fitted: Callable[[FloatArray], tuple[Any, FloatArray]]) -> Any:
    """What ``fitted`` finds, which gives what it found of lengths, and predicts them by it."""
    observed, cut = _lengths(rows)
    found, predicted = None, np.array([each.reading.predicted for each in rows])
    for _ in range(ROUNDS if cut.any() else 1):
        found, predicted = fitted(np.where(cut, np.maximum(observed, predicted), observed))
    return found


@dataclass(frozen=True)
class Ridge:
    """Ridge regression on the tf-idf of n-grams, scaled counts and the trained proxy's prediction.

    idf, words: shape (BUCKETS,). mean, scale, plain: (counts + 1,).
    """

    idf: np.ndarray
    words: np.ndarray
    mean: FloatArray
    scale: FloatArray
    plain: FloatArray
    level: float

    @classmethod
    def fit(cls, rows: Sequence[Finished], half_life: float) -> Self:
        """Fit to finished requests, the oldest first; one ``half_life`` older weighs half."""
        from scipy.sparse import csr_matrix, diags, hstack  # takes long to import
        from scipy.sparse.linalg import lsqr

        tfidf, idf = features.tfidf([each.reading.ids for each in rows], BUCKETS)
        plain = np.array([[*each.reading.counts, each.reading.shipped] for each in rows])
        mean, scale = plain.mean(axis=0), np.maximum(plain.std(axis=0), LEAST_SPREAD) / IMPORTANCE
        columns = hstack([tfidf, csr_matrix((plain - mean) / scale)], "csr")
        weights = 0.5 ** (np.arange(len(rows))[::-1] / half_life)
        roots = np.sqrt(weights)
        weighted = diags(roots) @ columns

        def solved(lengths: FloatArray) -> tuple[tuple[FloatArray, float], FloatArray]:
            level = float(np.average(lengths, weights=weights))
            target = roots * (lengths - level)
            found = lsqr(weighted, target, PENALTY**0.5, atol=TOLERANCE, btol=TOLERANCE)[0]
            return (found, level), level + columns @ found

        found, level = _uncut(rows, solved)
        return cls(idf, found[:BUCKETS].astype(np.float32), mean, scale, found[BUCKETS:], level)

    def log(self, reading: Reading) -> float:
        """The predicted length of a prompt that was read."""
        tfidf = self.idf[reading.ids].astype(np.float64)
        words = tfidf @ self.words[reading.ids] / max(float(np.sqrt(tfidf @ tfidf)), 1e-9)
        plain = (np.append(reading.counts, reading.shipped) - self.mean) / self.scale
        return float(self.level + words + plain @ self.plain)


@dataclass(frozen=True)
class Mixture:
    """Both predictions, each standardised, mixed, and brought to the scale of what finished.

    centre, spread: shape (2,), of both. weight: of the ridge. middle, slope, level: a line from
    the mixture to lengths.
    """

    centre: FloatArray
    spread: FloatArray
    weight: float
    middle: float
    slope: float
    level: float

    @classmethod
    def of(cls, rows: Sequence[Finished]) -> Self:
        """The best by what was predicted of these requests, at least one, before they finished.

        The fewer there are, the nearer it is to the trained proxy's own prediction.
        """
        judged = [each for each in rows if not np.isnan(each.reading.refitted)]
        enough = len(judged) >= FEWEST
        rows = judged if enough else rows
        logs = np.array([each.reading[2:4] if enough else [each.reading[2]] * 2 for each in rows])
        centre, spread = logs.mean(axis=0), np.maximum(logs.std(axis=0), LEAST_SPREAD)
        standard = (logs - centre) / spread
        weight = _weight(standard, *_lengths(rows)) if enough else 0.0
        mixed = standard @ [1 - weight, weight]
        middle, own = float(mixed.mean()), float(spread[0])
        off = mixed - middle

        def line(lengths: FloatArray) -> tuple[tuple[float, float], FloatArray]:
            level = centre[0] + (lengths - centre[0]).sum() / (len(lengths) + OF_LEVEL)
            slope = (off @ (lengths - level) + PRIOR * own) / (off @ off + PRIOR)
            slope = max(slope, LEAST_SLOPE * own)  # it keeps the order and makes no ties
            return (float(level), float(slope)), level + slope * off

        level, slope = _uncut(rows, line)
        return cls(centre, spread, weight, middle, slope, level)

    def log(self, reading: Reading) -> float:
        """The length that is predicted."""
        shipped, refitted = (np.array(reading[2:4]) - self.centre) / self.spread
        if self.weight and np.isfinite(refitted):
            shipped += self.weight * (refitted - shipped)
        return float(self.level + self.slope * (shipped - self.middle))


def _lengths(rows: Sequence[Finished]) -> tuple[FloatArray, np.ndarray]:
    """Logarithms of lengths, and which answers were cut off."""
    return np.array([each.log_tokens for each in rows]), np.array([each.cut_off for each in rows])


def _weight(standard: FloatArray, observed: FloatArray, cut: np.ndarray) -> float:
    """The ridge's weight: a mean of ``WEIGHTS``, each counting by how well it orders pairs.

    A pair is judged where it is known which was longer (Harrell's concordance).
    """
    longer = (observed[:, None] > observed) & ~cut
    if not longer.any():
        return 0.0
    mixed = standard @ np.stack([1 - WEIGHTS, WEIGHTS])
    right = np.array([(each[:, None] > each)[longer].mean() for each in mixed.T])
    votes = np.exp(CERTAINTY * len(observed) * (right - right.max()))
    return float(votes @ WEIGHTS / votes.sum())
