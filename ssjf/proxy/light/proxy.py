"""The light proxy: hashed n-grams and plain counts, linear scores, then boosted trees.

The shipped proxy is of this kind: no GPU, no download, half a millisecond for 64 tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from ssjf.proxy.base import Arrays, LogProxy, Part
from ssjf.proxy.light import features
from ssjf.request import FloatArray

CHUNK = 1024
TREE_TYPES = (np.int16, np.float32, np.int16, np.int16, np.float32)


@dataclass(frozen=True)
class Trees(Part):
    """t trees of at most m nodes each; node 0 is a tree's root.

    ``feature`` (t, m) is the column a node splits, or -1 in a leaf; a value of at most
    ``threshold`` (t, m) goes to ``left``, any other to ``right`` (both (t, m)); ``value``
    (t, m) is a leaf's part of the sum.
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray

    def sums(self, columns: np.ndarray) -> FloatArray:
        """The sum of the leaves reached, shape (n,), by rows of ``columns`` (n, features)."""
        return _leaf_sums(np.ascontiguousarray(columns, np.float32), *vars(self).values())

    def check(self, columns: int) -> None:
        """Raise ValueError if these are not trees on ``columns``: compiled code trusts them."""
        parts = [*vars(self).values()]
        shape = self.feature.shape
        if len(shape) != 2 or [(a.shape, a.dtype) for a in parts] != [
            (shape, kind) for kind in TREE_TYPES
        ]:
            raise ValueError("the trees' arrays are not of one shape and of their types")
        for children in (self.left, self.right):
            if ((children < 0) | (children >= shape[1])).any():
                raise ValueError("a tree has a branch to a node that is not there")
        if self.feature.max(initial=-1) >= columns:
            raise ValueError(f"the trees read more than the {columns} columns there are")


@njit(cache=True)
def _leaf_sums(columns, feature, threshold, left, right, value):
    """The sum of the leaves that each row of ``columns`` (n, features) reaches, shape (n,)."""
    sums = np.zeros(len(columns))
    for row in range(len(columns)):
        for tree in range(len(feature)):
            node = 0
            for _ in range(feature.shape[1]):  # no path is longer, so even bad trees end
                if feature[tree, node] < 0:
                    break
                if columns[row, feature[tree, node]] <= threshold[tree, node]:
                    node = left[tree, node]
                else:
                    node = right[tree, node]
            sums[row] += value[tree, node]
    return sums


@dataclass(frozen=True)
class LightProxy(LogProxy):
    """A trained light proxy.

    idf: shape (b,), the weight of each of b hash buckets.
    linear: shape (b, s), s linear scores of the tf-idf vector; ``offset`` (s,) is added.
    projection: shape (b, d), int8; times ``scale`` (d,), a projection of the same vector.
    base: shape (1,), what the trees' sum is added to.
    trees: from [scores, counts, projection] to the logarithm of the length.
    """

    idf: np.ndarray
    linear: np.ndarray
    offset: np.ndarray
    projection: np.ndarray
    scale: np.ndarray
    base: np.ndarray
    trees: Trees

    def predicted_logs(self, prompts: Sequence[str]) -> FloatArray:
        chunks = [prompts[i : i + CHUNK] for i in range(0, len(prompts), CHUNK)]
        sums = [self.trees.sums(np.stack([*map(self._columns, chunk)])) for chunk in chunks]
        return self.base + np.concatenate([np.zeros(0), *sums])

    def _columns(self, prompt: str) -> FloatArray:
        """The trees' input for a prompt, shape (s + counts + d,)."""
        ids = features.grams(prompt, len(self.idf))
        weights = self.idf[ids].astype(np.float64)
        weights /= max(float(np.sqrt(weights @ weights)), 1e-9)
        scores = weights @ self.linear[ids].astype(np.float64) + self.offset
        projected = weights @ self.projection[ids].astype(np.float64) * self.scale
        return np.concatenate([scores, features.counts(prompt), projected])

    def arrays(self) -> Arrays:
        return super().arrays() | self.trees.stored("trees")

    @classmethod
    def from_arrays(cls, arrays: Arrays, card: dict[str, Any]) -> "LightProxy":
        own = {name: array for name, array in arrays.items() if not name.startswith("trees.")}
        proxy = cls(**own, trees=Trees.restored("trees", arrays))
        proxy.trees.check(len(proxy.offset) + features.COUNTS + len(proxy.scale))
        return proxy
