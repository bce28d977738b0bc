"""Boosted regression trees as flat arrays, to predict without LightGBM."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from ssjf.request import FloatArray

KINDS = (np.int16, np.float32, np.int16, np.int16, np.float32)


@dataclass(frozen=True)
class Trees:
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

    def sums(self, columns: FloatArray) -> FloatArray:
        """The sum of the leaves reached, shape (n,), by rows of ``columns`` (n, features)."""
        arrays = (self.feature, self.threshold, self.left, self.right, self.value)
        return _leaf_sums(np.ascontiguousarray(columns, np.float32), *arrays)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name, as they are stored."""
        return {f"trees.{name}": getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "Trees":
        """The inverse of ``arrays``; ValueError for arrays that are no trees."""
        parts = [arrays[f"trees.{name}"] for name in cls.__dataclass_fields__]
        feature, _, left, right, _ = parts
        if feature.ndim != 2 or [(a.shape, a.dtype) for a in parts] != [
            (feature.shape, kind) for kind in KINDS
        ]:
            raise ValueError("the trees' arrays are not of one shape and of their types")
        for children in (left, right):
            if ((children < 0) | (children >= feature.shape[1])).any():
                raise ValueError("a tree has a branch to a node that is not there")
        return cls(*parts)


def from_lightgbm(booster: Any) -> Trees:
    """The trees of a trained LightGBM regressor without categorical columns."""
    dumped = [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
    nodes = [_nodes(root) for root in dumped]
    size = max(map(len, nodes))
    columns = []
    for place, kind in enumerate(KINDS):
        filled = np.zeros((len(nodes), size), kind)
        for tree, row in enumerate(nodes):
            filled[tree, : len(row)] = [node[place] for node in row]
        columns.append(filled)
    return Trees(*columns)


def _nodes(root: dict[str, Any]) -> list[tuple[int, float, int, int, float]]:
    """A tree as (feature, threshold, left, right, value), the root first."""
    nodes: list[Any] = [root]
    rows = []
    for node in nodes:
        if "leaf_value" in node:
            rows.append((-1, 0.0, 0, 0, node["leaf_value"]))
            continue
        children = len(nodes), len(nodes) + 1
        nodes += [node["left_child"], node["right_child"]]
        rows.append((node["split_feature"], _rounded_down(node["threshold"]), *children, 0.0))
    return rows


def _rounded_down(value: float) -> float:
    """The largest float32 of at most ``value``: it parts float32 columns just as ``value`` does."""
    near = np.float32(value)
    return float(near if float(near) <= value else np.nextafter(near, np.float32(-np.inf)))


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
