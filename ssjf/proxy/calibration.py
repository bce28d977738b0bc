"""Online calibration: predicted lengths corrected by what finished requests turned out to be.

The correction is monotone, so it never changes which of two requests goes first under SSJF: it
makes lengths right (for ageing, bounds and intervals), not the order. Only requests that are
corrected differently, as those of two LLMs with a calibrator each, can change places.
"""

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ssjf.request import FloatArray

FEWEST = 5  # below so many observations nothing is corrected
PRIOR = 20  # observations at which the curve weighs as much as one factor for all
LEAST_SLOPE = 0.01
_LARGEST_LOG = 700.0  # its exp is a float64


class Curve:
    """The correction learned from n logarithms of predictions x (sorted) and of lengths y.

    It is w g(x) + (1 - w) (x + shift) with w = min(n / (n + 20), 0.99), ``shift`` the median of
    y - x, and g the non-decreasing function of least squares, linear between the x and flat beyond
    them; its slope is at least 0.01.
    """

    def __init__(self, x: FloatArray, y: FloatArray) -> None:
        from scipy.optimize import isotonic_regression  # takes long to import

        self.shift = float(np.median(y - x))
        self.weight = min(len(x) / (len(x) + PRIOR), 1 - LEAST_SLOPE)
        self.knots, starts, counts = np.unique(x, return_index=True, return_counts=True)
        means = np.add.reduceat(y, starts) / counts
        self.values = isotonic_regression(means, weights=counts.astype(np.float64)).x

    def at(self, x: FloatArray) -> FloatArray:
        """Corrected logarithms of predicted ones, shape (n,)."""
        curve = np.interp(x, self.knots, self.values)
        return self.weight * curve + (1 - self.weight) * (x + self.shift)


class Calibrator:
    """Learns from the last ``window`` finished requests; predictions and lengths in tokens.

    The isotonic regression of the logarithms is mixed with one factor for all, which weighs most
    while there are few observations and never less than 0.01 (see ``Curve``): predictions that
    differ by more than a part in a billion are never tied, nor their order turned. A fit is made
    when it is needed.
    """

    def __init__(self, window: int = 1000) -> None:
        self._points: deque[tuple[float, float]] = deque(maxlen=window)  # (predicted, output)
        self._curve: Curve | None = None

    def __len__(self) -> int:
        return len(self._points)

    def observe(self, predicted_tokens: float, output_tokens: float) -> None:
        """A request has finished; ValueError for numbers that are no lengths."""
        point = float(predicted_tokens), float(output_tokens)
        if not all(0 < tokens < np.inf for tokens in point):
            raise ValueError(f"{point} are no lengths")
        self._points.append(point)
        self._curve = None

    def calibrate(self, predicted_tokens: ArrayLike) -> FloatArray:
        """Predicted lengths corrected, of any shape."""
        tokens = np.array(predicted_tokens, np.float64)
        if len(self) < FEWEST:
            return tokens
        if self._curve is None:
            self._curve = Curve(*np.log(np.array(sorted(self._points)).T))
        return np.exp(np.clip(self._curve.at(np.log(tokens)), -_LARGEST_LOG, _LARGEST_LOG))

    def state(self) -> dict[str, list[float]]:
        """All that is remembered, the oldest first."""
        predicted, output = ([point[i] for point in self._points] for i in (0, 1))
        return {"predicted_tokens": predicted, "output_tokens": output}

    @classmethod
    def from_state(cls, state: Any, window: int = 1000) -> "Calibrator":
        """The inverse of ``state``; ValueError, TypeError or KeyError for what is none."""
        calibrator = cls(window)
        for point in zip(state["predicted_tokens"], state["output_tokens"], strict=True):
            calibrator.observe(*point)
        return calibrator
