"""The monotone curve that a calibrator corrects by, fitted to logarithms of lengths."""

from collections.abc import Callable

import numpy as np

from ssjf.request import FloatArray

PRIOR = 20  # observations at which the curve weighs as much as one factor for all
LEAST_SLOPE = 0.01
_GRID = np.linspace(0.05, 0.95, 19)

Knots = tuple[FloatArray, FloatArray]


class Curve:
    """The correction learned from n logarithms of predictions x (sorted) and of lengths y.

    It is w g(x) + (1 - w) (x + shift) with w = min(n / (n + 20), 0.99), ``shift`` the median of
    y - x, and g by the method; its slope is at least 0.01.
    """

    def __init__(self, x: FloatArray, y: FloatArray, method: str) -> None:
        self.shift = float(np.median(y - x))
        self.weight = min(len(x) / (len(x) + PRIOR), 1 - LEAST_SLOPE)
        self.knots, self.values = CURVES[method](x, y)

    def at(self, x: FloatArray) -> FloatArray:
        """Corrected logarithms of predicted ones, shape (n,)."""
        curve = np.interp(x, self.knots, self.values)
        return self.weight * curve + (1 - self.weight) * (x + self.shift)


def isotonic(x: FloatArray, y: FloatArray) -> Knots:
    """The non-decreasing function of least squares: linear between the x, flat beyond them."""
    from scipy.optimize import isotonic_regression  # takes long to import

    starts = np.flatnonzero(np.append(True, np.diff(x) > 0))
    counts = np.diff(np.append(starts, len(x)))
    means = np.add.reduceat(y, starts) / counts
    return x[starts], isotonic_regression(means, weights=counts.astype(np.float64)).x


def quantile(x: FloatArray, y: FloatArray) -> Knots:
    """Every twentieth of the predictions goes to the same twentieth of the lengths."""
    knots, at, counts = np.unique(np.quantile(x, _GRID), return_inverse=True, return_counts=True)
    return knots, np.bincount(at, np.quantile(y, _GRID)) / counts


CURVES: dict[str, Callable[[FloatArray, FloatArray], Knots]] = {
    "isotonic": isotonic,
    "quantile": quantile,
}
