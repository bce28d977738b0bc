"""Online calibration: predicted lengths corrected by what finished requests turned out to be.

The correction is monotone, so it never changes which of two requests goes first under SSJF: it
makes lengths right (for ageing, bounds and intervals), not the order. Only requests that are
corrected differently, as those of two LLMs with a calibrator each, can change places.
"""

import math
from bisect import bisect_left, insort
from collections import deque
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ssjf.errors import InputError, unknown
from ssjf.proxy.calibration_curve import CURVES, Curve
from ssjf.proxy.conformal import LEAST_OF_BAND, LEVELS, Spread, spread
from ssjf.request import FloatArray

FORMAT = 1
METHODS = (*CURVES, "none")
WINDOWS = (10, 10**5)
FEWEST = 5  # below so many observations nothing is corrected
BANDS = 4
_LARGEST_LOG = 700.0  # its exp is a float64

Point = tuple[float, float]


class Calibrator:
    """Learns from the last ``window`` finished requests; predictions and lengths in tokens.

    ``isotonic`` corrects by the non-decreasing function of least squares of the logarithms,
    ``quantile`` maps quantiles of the predictions to those of the lengths, ``none`` corrects
    nothing. Either is mixed with one factor for all, which weighs most while there are few
    observations and never less than 0.01 (see ``Curve``): predictions that differ by more than a
    part in a billion are never tied, nor their order turned. A fit is made when it is asked for
    and takes O(window).
    """

    def __init__(self, window: int = 1000, method: str = "isotonic") -> None:
        if type(window) is not int or not WINDOWS[0] <= window <= WINDOWS[1]:
            raise InputError(
                f"window is {window!r}; it must be a whole number from {WINDOWS[0]} to {WINDOWS[1]}"
            )
        if method not in METHODS:
            raise unknown("calibration method", method, METHODS)
        self.window, self.method, self.ignored = window, method, 0
        self._points: deque[Point] = deque()  # (predicted, output) by time
        self._sorted: list[Point] = []  # the same by prediction: no fit has to sort
        self._curve: Curve | None = None
        self._spread: Spread | None = None

    def __len__(self) -> int:
        return len(self._points)

    def observe(self, predicted_tokens: float, output_tokens: float) -> None:
        """A request has finished. Numbers that are no lengths are ``ignored``, and counted."""
        point = _number(predicted_tokens), _number(output_tokens)
        if not all(0 < value < math.inf for value in point):
            self.ignored += 1
            return
        if len(self._points) == self.window:
            oldest = self._points.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]
        self._points.append(point)
        insort(self._sorted, point)
        self._curve = self._spread = None

    def calibrate(self, predicted_tokens: ArrayLike) -> FloatArray:
        """Predictions corrected, of any shape; what is no length stays as it is."""
        found = np.array(predicted_tokens, np.float64)
        valid = np.isfinite(found) & (found > 0)
        if self.method != "none" and len(self) >= FEWEST:
            if self._curve is None:
                x, y = self._logs().T
                self._curve = Curve(x, y, self.method)
            logs = np.clip(self._curve.at(np.log(found[valid])), -_LARGEST_LOG, _LARGEST_LOG)
            found[valid] = np.exp(logs)
        return found

    def around(self, predicted_tokens: ArrayLike) -> FloatArray:
        """Quantiles of the lengths at ``spread.LEVELS``, shape (n, levels), of n predictions.

        The residuals are those of one half of the window about what the other half corrects, so
        that no length vouches for itself. NaN for what is no length, and while fewer than
        30 requests have finished: then the proxy's own quantiles are all there is.
        """
        corrected = self.calibrate(np.atleast_1d(np.asarray(predicted_tokens, np.float64)))
        found = np.full((len(corrected), len(LEVELS)), np.nan)
        valid = np.isfinite(corrected) & (corrected > 0)
        if len(self) >= LEAST_OF_BAND:
            if self._spread is None:
                self._spread = self._residuals()
            found[valid] = self._spread.around(np.log(corrected[valid]))
        return found

    def _residuals(self) -> Spread:
        x, y = self._logs().T
        found = x.copy()
        if self.method != "none":
            even, odd = slice(0, None, 2), slice(1, None, 2)
            for half, other in ((even, odd), (odd, even)):
                found[half] = Curve(x[other], y[other], self.method).at(x[half])
        return spread(found, y[:, None], BANDS)

    def _logs(self) -> FloatArray:
        """Logarithms (predicted, output), shape (n, 2), by prediction."""
        flat = chain.from_iterable(self._sorted)
        return np.log(np.fromiter(flat, np.float64, 2 * len(self)).reshape(-1, 2))

    def state(self) -> dict[str, Any]:
        """All that is remembered, as JSON takes it."""
        predicted, output = ([point[i] for point in self._points] for i in (0, 1))
        return {
            "format": FORMAT, "window": self.window, "method": self.method,
            "ignored": self.ignored, "predicted_tokens": predicted, "output_tokens": output,
        }  # fmt: skip

    @classmethod
    def from_state(cls, state: Any) -> "Calibrator":
        """The inverse of ``state``; InputError for what ``state`` cannot have given."""
        points = _points(state)
        found = cls(state["window"], state["method"])
        if len(points) > found.window:
            raise InputError(
                f"calibration state: {len(points)} observations do not fit a window of "
                f"{found.window}"
            )
        found._points, found._sorted = deque(points), sorted(points)
        found.ignored = state["ignored"]
        return found


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _points(state: Any) -> list[Point]:
    """The observations of a state, once all of it is what ``state`` gives."""
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise InputError(f"calibration state: it must be an object of format {FORMAT}")
    for key in ("window", "method", "ignored", "predicted_tokens", "output_tokens"):
        if key not in state:
            raise InputError(f"calibration state: {key} is missing")
    if type(state["ignored"]) is not int or state["ignored"] < 0:
        raise InputError(f"calibration state: ignored is {state['ignored']!r}, which is no count")
    columns = [_lengths(key, state[key]) for key in ("predicted_tokens", "output_tokens")]
    if len(columns[0]) != len(columns[1]):
        raise InputError(
            f"calibration state: {len(columns[0])} predicted_tokens and {len(columns[1])} "
            "output_tokens; they must be as many"
        )
    return [*zip(*columns, strict=True)]


def _lengths(key: str, values: Any) -> list[float]:
    if not isinstance(values, list):
        raise InputError(f"calibration state: {key} must be a list of lengths in tokens")
    for value in values:
        if type(value) not in (int, float) or not 0 < _number(value) < math.inf:
            raise InputError(f"calibration state: {key} holds {value!r:.40}, which is no length")
    return [float(value) for value in values]
