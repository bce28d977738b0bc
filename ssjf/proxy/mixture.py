"""Ridge regression on finished requests, and its mixture with the trained proxy.

All lengths are logarithms of tokens. A target is the length of an answer; if that was cut off at a
limit, the prediction counts instead where it is longer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from ssjf.proxy.light import features
from ssjf.request import FloatArray

BUCKETS = 2**17
PENALTY, TOLERANCE = 1.0, 1e-3  # of the ridge
IMPORTANCE = np.array([0.05] * features.COUNTS + [1.0])  # of counts and prediction; n-grams: 1
WEIGHTS = np.linspace(0, 1, 5)  # candidate weights of the ridge in the mixture
FEWEST = 10  # requests predicted by the ridge before it counts
CERTAINTY = 3.0  # how fast the better-ordering model takes over
PRIOR, OF_LEVEL = 20.0, 5.0  # requests that weigh as much as the trained proxy's scale, and level
LEAST_SLOPE, LEAST_SPREAD = 0.1, 1e-3
ROUNDS = 3  # repeated fits if answers were cut off


class Reading(NamedTuple):
    """A prompt: hashed n-grams, plain counts, and the lengths predicted by the trained proxy
    (shipped) and by the ridge (refitted, NaN while there is none)."""

    ids: np.ndarray
    counts: np.ndarray
    shipped: float
    refitted: float


class Finished(NamedTuple):
    """A finished request."""

    reading: Reading
    length: float
    cut_off: bool


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
        """Fit to finished requests, oldest first; a request ``half_life`` older weighs half."""
        from scipy.sparse import csr_matrix, diags, hstack  # takes long to import
        from scipy.sparse.linalg import lsqr

        tfidf, idf = features.tfidf([each.reading.ids for each in rows], BUCKETS)
        plain = np.array([[*each.reading.counts, each.reading.shipped] for each in rows])
        mean, scale = plain.mean(axis=0), np.maximum(plain.std(axis=0), LEAST_SPREAD) / IMPORTANCE
        columns = hstack([tfidf, csr_matrix((plain - mean) / scale)], "csr")
        weights = 0.5 ** (np.arange(len(rows))[::-1] / half_life)
        roots = np.sqrt(weights)
        weighted, damping = diags(roots) @ columns, PENALTY**0.5
        observed, cut_off = np.array([each[1:] for each in rows]).T
        targets, level, found = observed, 0.0, np.zeros(columns.shape[1])
        for _ in range(ROUNDS if cut_off.any() else 1):
            level = float(np.average(targets, weights=weights))
            found = lsqr(weighted, roots * (targets - level), damping, TOLERANCE, TOLERANCE)[0]
            # Not from earlier predictions: a wrong order would be learned again.
            targets = np.where(cut_off, np.maximum(observed, level + columns @ found), observed)
        return cls(idf, found[:BUCKETS].astype(np.float32), mean, scale, found[BUCKETS:], level)

    def length(self, reading: Reading) -> float:
        """The predicted length."""
        tfidf = self.idf[reading.ids].astype(np.float64)
        words = tfidf @ self.words[reading.ids] / max(float(np.sqrt(tfidf @ tfidf)), 1e-9)
        plain = (np.append(reading.counts, reading.shipped) - self.mean) / self.scale
        return float(self.level + words + plain @ self.plain)


class Mixture(NamedTuple):
    """The mixture of both standardised predictions on the scale of finished requests, as a weight
    of each and a constant."""

    shipped: float
    refitted: float
    constant: float

    @classmethod
    def of(cls, rows: Sequence[Finished], targets: FloatArray) -> Self:
        """Fit to at least one finished request and its earlier predictions.

        With few requests it stays near the trained proxy's own prediction.
        """
        lengths = np.array([each.reading[2:] for each in rows])
        finished = np.array([each[1:] for each in rows])
        judged = ~np.isnan(lengths[:, 1])
        if enough := judged.sum() >= FEWEST:
            lengths, targets, finished = lengths[judged], targets[judged], finished[judged]
        else:
            lengths[:, 1] = lengths[:, 0]
        mean, spread = lengths.mean(axis=0), np.maximum(lengths.std(axis=0), LEAST_SPREAD)
        standard = (lengths - mean) / spread
        of_ridge = _weight(standard, *finished.T) if enough else 0.0
        weights = np.array([1 - of_ridge, of_ridge])
        mixed = standard @ weights
        level = mean[0] + (targets - mean[0]).sum() / (len(targets) + OF_LEVEL)
        slope = (mixed @ (targets - level) + PRIOR * spread[0]) / (mixed @ mixed + PRIOR)
        slope = max(slope, LEAST_SLOPE * spread[0])  # keeps the order without ties
        of_both = slope * weights / spread
        shipped, refitted = map(float, of_both)
        return cls(shipped, refitted, float(level - of_both @ mean))

    def length(self, reading: Reading) -> float:
        """The predicted length."""
        refitted = self.refitted * reading.refitted if self.refitted else 0.0
        return self.constant + self.shipped * reading.shipped + refitted


def _weight(standard: FloatArray, observed: FloatArray, cut_off: FloatArray) -> float:
    """The ridge's weight: a mean of ``WEIGHTS``, weighted by how well each orders pairs.

    Only pairs of which the longer one is known are judged (Harrell's concordance).
    """
    longer = (observed[:, None] > observed) & (cut_off == 0)
    if not longer.any():
        return 0.0
    mixed = standard @ np.stack([1 - WEIGHTS, WEIGHTS])
    right = np.array([(each[:, None] > each)[longer].mean() for each in mixed.T])
    votes = np.exp(CERTAINTY * len(observed) * (right - right.max()))
    return float(votes @ WEIGHTS / votes.sum())
