"""The two ways to learn from finished requests; which is used is the option ``learn``."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ssjf.proxy.base import Proxy
from ssjf.proxy.calibration import FEWEST, Calibrator
from ssjf.proxy.retrieval.index import VectorIndex
from ssjf.proxy.retrieval.proxy import RetrievalProxy
from ssjf.serving.forecasting import Forecaster
from ssjf.serving.openai import Asked

MOST_MODELS = 32  # that have a calibrator of their own; the one not used for longest goes
MOST_PROMPTS = 100_000  # that are remembered beside those the proxy was trained on


class Calibrating(Forecaster):
    """Corrects the proxy's lengths by those that finished, of each served model on its own."""

    def __init__(self, proxy: Proxy, history: bool = False) -> None:
        super().__init__(proxy, history)
        self.calibrators: dict[str, Calibrator] = {}

    def corrected(self, asked: Sequence[Asked], tokens: np.ndarray) -> np.ndarray:
        found = np.array(tokens, np.float64)
        models = np.array([each.model for each in asked], object)
        for model in set(models):
            if model in self.calibrators:
                found[models == model] = self.calibrators[model].calibrate(tokens[models == model])
        return found

    def learn(self, asked: Asked, raw_tokens: float, output_tokens: int) -> None:
        calibrator = self.calibrators.pop(asked.model, None) or Calibrator()
        self.calibrators[asked.model] = calibrator  # now the last
        calibrator.observe(raw_tokens, output_tokens)
        while len(self.calibrators) > MOST_MODELS:
            del self.calibrators[next(iter(self.calibrators))]

    def warm_up(self) -> None:
        super().warm_up()
        spare = Calibrator()
        for tokens in range(1, FEWEST + 1):
            spare.observe(tokens, tokens)
        spare.calibrate([1.0])

    def state(self) -> bytes:
        told = {model: each.state() for model, each in self.calibrators.items()}
        return json.dumps(told).encode()

    def restore(self, state: bytes) -> None:
        told = json.loads(state)
        if not isinstance(told, dict):
            raise ValueError("the calibrations are no object")
        self.calibrators = {model: Calibrator.from_state(each) for model, each in told.items()}


class Remembering(Forecaster):
    """Remembers finished prompts, as vectors, in the memory of a retrieval proxy."""

    def __init__(self, proxy: RetrievalProxy, history: bool = False) -> None:
        super().__init__(proxy, history)
        self.proxy: RetrievalProxy = proxy
        self._trained_on = len(proxy.memory)

    def learn(self, asked: Asked, raw_tokens: float, output_tokens: int) -> None:
        (new,) = self.proxy.learn(asked.texts, [output_tokens])
        if new - MOST_PROMPTS >= self._trained_on:  # ids rise by one
            self.proxy.forget([new - MOST_PROMPTS])

    def state(self) -> bytes:
        return self.proxy.memory.to_bytes()

    def restore(self, state: bytes) -> None:
        dimensions = len(self.proxy.fallback.layers[0][0])
        memory = VectorIndex.from_bytes(state, dimensions, self.proxy.config.capacity)
        self.proxy = replace(self.proxy, memory=memory)


LEARNERS: dict[str, type[Forecaster]] = {
    "none": Forecaster,
    "calibration": Calibrating,
    "retrieval": Remembering,
}
