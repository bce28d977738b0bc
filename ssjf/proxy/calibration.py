"""Online calibration: predicted lengths corrected by what finished requests turned out to be.

The correction is monotone, so it never changes which of two requests goes first under SSJF: it
makes lengths right (for ageing, bounds and intervals), not the order. Only requests that are
corrected differently, as those of two LLMs with a calibrator each, can change places.
"""

import math
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ssjf.errors import InputError, unknown
from ssjf.request import FloatArray

FORMAT = 1
WINDOWS = (10, 10**5)
FEWEST = 5  # below so many observations nothing is corrected
PRIOR = 20  # observations at which the curve weighs as much as one factor for all
LEAST_SLOPE = 0.01
_GRID = np.linspace(0.05, 0.95, 19)
_LARGEST_LOG = 700.0  # its exp is a float64

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
    "isotonic": isotonic, "quantile": quantile,
}  # fmt: skip
METHODS = (*CURVES, "none")


class Calibrator:
    """Learns from the last ``window`` finished requests; predictions and lengths in tokens.

    ``isotonic`` corrects by the non-decreasing function of least squares of the logarithms,
    ``quantile`` maps quantiles of the predictions to those of the lengths, ``none`` corrects
    nothing. Either is mixed with one factor for all, which weighs most while there are few
    observations and never less than 0.01 (see ``Curve``): predictions that differ by more than a
    part in a billion are never tied, nor their order turned. A fit is made when it is needed.
    """

    def __init__(self, window: int = 1000, method: str = "isotonic") -> None:
        if type(window) is not int or not WINDOWS[0] <= window <= WINDOWS[1]:
            raise InputError(
                f"window is {window!r}; it must be a whole number from {WINDOWS[0]} to {WINDOWS[1]}"
            )
        if method not in METHODS:
            raise unknown("calibration method", method, METHODS)
        self.window, self.method, self.ignored = window, method, 0
        self._points: deque[tuple[float, float]] = deque(maxlen=window)  # (predicted, output)
        self._curve: Curve | None = None

    def __len__(self) -> int:
        return len(self._points)

    def observe(self, predicted_tokens: float, output_tokens: float) -> None:
        """A request has finished. Numbers that are no lengths are ``ignored``, and counted."""
        predicted, output = _number(predicted_tokens), _number(output_tokens)
        if not (0 < predicted < math.inf and 0 < output < math.inf):
            self.ignored += 1
            return
        self._points.append((predicted, output))
        self._curve = None

    def calibrate(self, predicted_tokens: ArrayLike) -> FloatArray:
        """Predictions corrected, of any shape; what is no length stays as it is."""
        tokens = np.array(predicted_tokens, np.float64)
        valid = np.isfinite(tokens) & (tokens > 0)
        if self.method != "none" and len(self) >= FEWEST:
            if self._curve is None:
                x, y = np.log(np.array(sorted(self._points)).T)
                self._curve = Curve(x, y, self.method)
            logs = np.clip(self._curve.at(np.log(tokens[valid])), -_LARGEST_LOG, _LARGEST_LOG)
            tokens[valid] = np.exp(logs)
        return tokens

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
        _check(state)
        calibrator = cls(state["window"], state["method"])
        predicted, output = (
            _lengths(key, state[key]) for key in ("predicted_tokens", "output_tokens")
        )
        if len(predicted) != len(output):
            raise InputError(
                f"calibration state: {len(predicted)} predicted_tokens and {len(output)} "
                "output_tokens; they must be as many"
            )
        if len(predicted) > calibrator.window:
            raise InputError(
                f"calibration state: {len(predicted)} observations do not fit a window of "
                f"{calibrator.window}"
            )
        calibrator._points.extend(zip(predicted, output, strict=True))
        calibrator.ignored = state["ignored"]
        return calibrator


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _check(state: Any) -> None:
    """InputError unless a state has the keys of one, and a count of what was ignored."""
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise InputError(f"calibration state: it must be an object of format {FORMAT}")
    for key in Calibrator().state():
        if key not in state:
            raise InputError(f"calibration state: {key} is missing")
    if type(state["ignored"]) is not int or state["ignored"] < 0:
        raise InputError(f"calibration state: ignored is {state['ignored']!r}, which is no count")


def _lengths(key: str, values: Any) -> list[float]:
    if not isinstance(values, list):
        raise InputError(f"calibration state: {key} must be a list of lengths in tokens")
    for value in values:
        if type(value) not in (int, float) or not 0 < _number(value) < math.inf:
            raise InputError(f"calibration state: {key} holds {value!r:.40}, which is no length")
    return [float(value) for value in values]
