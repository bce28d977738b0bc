"""Rank correlations of every column with every other at once, and of resamples of the rows."""

import numpy as np

from ssjf.request import FloatArray, IntArray

CHUNK = 20_000  # pairs of rows at a time


def spearman(a: FloatArray, b: FloatArray) -> FloatArray:
    """Spearman's rho of columns (n, p) with columns (n, q): shape (p, q); ties share mean ranks.

    NaN where a column is constant.
    """
    with np.errstate(invalid="ignore"):
        return _unit_ranks(a).T @ _unit_ranks(b)


def _unit_ranks(values: FloatArray) -> FloatArray:
    """Mean ranks of each column, centred and of length 1."""
    from scipy.stats import rankdata

    ranks = rankdata(values, axis=0)
    ranks -= ranks.mean(axis=0)
    return ranks / np.sqrt((ranks**2).sum(axis=0))


def spearman_in_folds(a: FloatArray, b: FloatArray, fold: IntArray) -> FloatArray:
    """The mean over folds of ``spearman`` within a fold: predictions of k models, one per fold,
    are only compared with those of the same model. ``fold``: shape (n,)."""
    found = [spearman(a[fold == k], b[fold == k]) for k in np.unique(fold)]
    return np.mean(found, axis=0)


class Kendall:
    """Kendall's tau-b of all columns of ``values`` (n, m): signs of pairs once, any weights.

    A resample of the rows is the rows with weights, how often each was drawn: a pair of copies
    of one row is a tie, which tau-b leaves out.
    """

    def __init__(self, values: FloatArray) -> None:
        self._one, self._other = np.triu_indices(len(values), 1)
        self._signs = np.sign(values[self._one] - values[self._other]).astype(np.int8)

    def tau(self, weights: IntArray | None = None) -> FloatArray:
        """Shape (m, m); ``weights``, shape (n,), are whole numbers of at least 0."""
        together = np.zeros(2 * self._signs.shape[1:])
        for start in range(0, len(self._signs), CHUNK):
            part = slice(start, start + CHUNK)
            signs = self._signs[part].astype(np.float32)
            scaled = signs
            if weights is not None:
                pairs = weights[self._one[part]] * weights[self._other[part]]
                scaled = signs * pairs[:, None].astype(np.float32)
            together += signs.T @ scaled
        apart = np.sqrt(np.diag(together))
        with np.errstate(invalid="ignore"):
            return together / np.outer(apart, apart)
