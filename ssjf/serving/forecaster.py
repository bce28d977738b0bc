"""Forecasts by a proxy, and the two ways to correct them by the lengths of finished requests."""

import json
import statistics
import time
from dataclasses import dataclass, replace

import numpy as np

from ssjf.proxy.base import Proxy
from ssjf.proxy.calibration import FEWEST, Calibrator
from ssjf.proxy.retrieval.index import VectorIndex
from ssjf.proxy.retrieval.proxy import RetrievalProxy
from ssjf.serving.openai import CompletionRequest
from ssjf.serving.response import NotLearnable

WARM_UP = CompletionRequest(("Write a list of three words. " * 40,))  # about 256 tokens
WARM_UPS = 5  # timed predictions
MAX_MODELS = 32  # that have a calibrator of their own; the least recently used goes
MAX_PROMPTS = 100_000  # remembered beside those the proxy was trained on


@dataclass(frozen=True)
class Forecast:
    """A predicted length in tokens.

    tokens: corrected by what was learned. raw: as the proxy predicted. high: its top quantile.
    """

    tokens: float
    raw: float
    high: float


class Forecaster:
    """A proxy that does not learn. ``history``: it was trained on earlier turns, too."""

    def __init__(self, proxy: Proxy, history: bool = False) -> None:
        self.proxy, self.history = proxy, history

    def forecast(self, request: CompletionRequest) -> Forecast:
        """Forecast the longest answer to a request's prompts; ValueError for impossible lengths."""
        knows = bool(getattr(self.proxy, "llms", ()))
        llms = [request.model] * len(request.prompts) if knows else None
        predicted = self.proxy.predict(request.prompts, llms)
        tokens = predicted.tokens
        if len(tokens) != len(request.prompts) or not (np.isfinite(tokens) & (tokens > 0)).all():
            raise ValueError("the proxy's predictions are no lengths")
        raw, high = float(tokens.max()), float(predicted.quantiles[:, -1].max())
        return Forecast(self.corrected(request, raw), raw, high)

    def corrected(self, request: CompletionRequest, tokens: float) -> float:
        """A predicted length, corrected by finished requests."""
        return tokens

    def learn(self, request: CompletionRequest, raw_tokens: float, output_tokens: int) -> None:
        """Learn from a finished request; NotLearnable if this forecaster does not learn."""
        raise NotLearnable("learn_is_none")

    def warm_up(self) -> float:
        """Predict a few times; median seconds, without the first (imports, compiling)."""
        self.forecast(WARM_UP)
        seconds = []
        for _ in range(WARM_UPS):
            started = time.perf_counter()
            self.forecast(WARM_UP)
            seconds.append(time.perf_counter() - started)
        return statistics.median(seconds)

    def state(self) -> bytes:
        """What was learned."""
        return b""

    def restore(self, state: bytes) -> None:
        """The inverse of ``state``; ValueError for other bytes."""


class Calibrating(Forecaster):
    """Calibrates predictions by the lengths that finished, per served model."""

    def __init__(self, proxy: Proxy, history: bool = False) -> None:
        super().__init__(proxy, history)
        self.calibrators: dict[str, Calibrator] = {}

    def corrected(self, request: CompletionRequest, tokens: float) -> float:
        calibrator = self.calibrators.get(request.model)
        return tokens if calibrator is None else float(calibrator.calibrate([tokens])[0])

    def learn(self, request: CompletionRequest, raw_tokens: float, output_tokens: int) -> None:
        calibrator = self.calibrators.pop(request.model, None) or Calibrator()
        self.calibrators[request.model] = calibrator  # now the last
        calibrator.observe(raw_tokens, output_tokens)
        while len(self.calibrators) > MAX_MODELS:
            del self.calibrators[next(iter(self.calibrators))]

    def warm_up(self) -> float:
        spare = Calibrator()
        for tokens in range(1, FEWEST + 1):
            spare.observe(tokens, tokens)
        spare.calibrate([1.0])
        return super().warm_up()

    def state(self) -> bytes:
        return json.dumps({name: each.state() for name, each in self.calibrators.items()}).encode()

    def restore(self, state: bytes) -> None:
        saved = json.loads(state)
        if not isinstance(saved, dict):
            raise ValueError("the calibrations are no object")
        self.calibrators = {name: Calibrator.from_state(each) for name, each in saved.items()}


class Remembering(Forecaster):
    """Adds finished prompts, as vectors, to the memory of a retrieval proxy."""

    def __init__(self, proxy: RetrievalProxy, history: bool = False) -> None:
        super().__init__(proxy, history)
        self.proxy: RetrievalProxy = proxy
        self._trained_on = len(proxy.memory)

    def learn(self, request: CompletionRequest, raw_tokens: float, output_tokens: int) -> None:
        (new,) = self.proxy.learn(request.prompts, [output_tokens])
        if new - MAX_PROMPTS >= self._trained_on:  # ids rise by one
            self.proxy.memory.forget([new - MAX_PROMPTS])

    def state(self) -> bytes:
        return self.proxy.memory.to_bytes()

    def restore(self, state: bytes) -> None:
        dimensions = len(self.proxy.fallback.layers[0][0])
        memory = VectorIndex.from_bytes(state, dimensions, self.proxy.config.capacity)
        self.proxy = replace(self.proxy, memory=memory)


FORECASTERS: dict[str, type[Forecaster]] = {
    "none": Forecaster, "calibration": Calibrating, "retrieval": Remembering,
}  # fmt: skip
"""By the option ``learn``."""
