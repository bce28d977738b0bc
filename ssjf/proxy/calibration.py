"""Online calibration: predicted lengths corrected by what finished requests turned out to be.

The correction is monotone, so it never changes which of two requests goes first under SSJF: it
makes lengths right (for ageing, bounds and intervals), not the order. Only requests that are
corrected differently, as those of two LLMs with a calibrator each, can change places.
"""

import math
from collections import deque
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, Field, ValidationError, model_validator

from ssjf.config import STRICT, count
from ssjf.errors import InputError
from ssjf.request import FloatArray

FEWEST = 5  # below so many observations nothing is corrected
PRIOR = 20  # observations at which the curve weighs as much as one factor for all
LEAST_SLOPE = 0.01
_LARGEST_LOG = 700.0  # its exp is a float64
Lengths = list[Annotated[float, Field(gt=0)]]


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
        starts = np.flatnonzero(np.append(True, np.diff(x) > 0))
        counts = np.diff(np.append(starts, len(x)))
        means = np.add.reduceat(y, starts) / counts
        self.knots = x[starts]
        self.values = isotonic_regression(means, weights=counts.astype(np.float64)).x

    def at(self, x: FloatArray) -> FloatArray:
        """Corrected logarithms of predicted ones, shape (n,)."""
        curve = np.interp(x, self.knots, self.values)
        return self.weight * curve + (1 - self.weight) * (x + self.shift)


class CalibratorState(BaseModel):
    """What a calibrator remembers, as JSON takes it; lengths in tokens, the oldest first."""

    model_config = STRICT

    format: Literal[1] = 1
    window: int = Field(ge=1, le=10**5)
    method: Literal["isotonic"] = "isotonic"
    ignored: int = Field(ge=0)
    predicted_tokens: Lengths
    output_tokens: Lengths

    @model_validator(mode="after")
    def _check(self) -> Any:
        predicted, output = len(self.predicted_tokens), len(self.output_tokens)
        if predicted != output:
            raise ValueError(f"{predicted} predicted_tokens and {output} output_tokens")
        if predicted > self.window:
            raise ValueError(f"{predicted} observations do not fit a window of {self.window}")
        return self


class Calibrator:
    """Learns from the last ``window`` finished requests; predictions and lengths in tokens.

    The isotonic regression of the logarithms is mixed with one factor for all, which weighs most
    while there are few observations and never less than 0.01 (see ``Curve``): predictions that
    differ by more than a part in a billion are never tied, nor their order turned. A fit is made
    when it is needed.
    """

    def __init__(self, window: int = 1000) -> None:
        self.window, self.ignored = count("window", window), 0
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
        if len(self) >= FEWEST:
            if self._curve is None:
                self._curve = Curve(*np.log(np.array(sorted(self._points)).T))
            logs = np.clip(self._curve.at(np.log(tokens[valid])), -_LARGEST_LOG, _LARGEST_LOG)
            tokens[valid] = np.exp(logs)
        return tokens

    def state(self) -> dict[str, Any]:
        """All that is remembered (see ``CalibratorState``)."""
        predicted, output = ([point[i] for point in self._points] for i in (0, 1))
        return CalibratorState(
            window=self.window, ignored=self.ignored, predicted_tokens=predicted,
            output_tokens=output,
        ).model_dump()  # fmt: skip

    @classmethod
    def from_state(cls, state: Any) -> "Calibrator":
        """The inverse of ``state``; InputError for what ``state`` cannot have given."""
        try:
            valid = CalibratorState.model_validate(state)
        except ValidationError as failure:
            error = failure.errors()[0]
            message = error["msg"].removeprefix("Value error, ")
            sentence = " ".join([*map(str, error["loc"]), message])
            raise InputError(f"calibration state: {sentence}") from None
        calibrator = cls(valid.window)
        calibrator.ignored = valid.ignored
        calibrator._points.extend(zip(valid.predicted_tokens, valid.output_tokens, strict=True))
        return calibrator


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
