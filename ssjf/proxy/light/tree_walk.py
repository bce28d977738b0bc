"""The inner loop of ``trees``, compiled: imported only when a prediction is made."""

import numpy as np
from numba import njit


@njit(cache=True)
def leaf_sums(columns, feature, threshold, left, right, value):
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
