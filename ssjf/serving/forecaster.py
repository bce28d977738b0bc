"""Forecast answers' lengths with a proxy, as it is or refitted to finished requests."""

import json
import logging
import math
import statistics
import time
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from ssjf.proxy.base import Proxy
from ssjf.proxy.mixture import Reading
from ssjf.proxy.refit import FIRST, Refit
from ssjf.request import FloatArray
from ssjf.serving.openai import CompletionRequest
from ssjf.serving.response import NotLearnable

WARM_UPS = 5  # timed predictions
MAX_MODELS = 32  # that are learned about; the least recently used is forgotten
LOG = logging.getLogger(__name__)


def warm_up_request(i: int) -> CompletionRequest:
    """Return the i-th of some different requests of about 256 tokens."""
    return CompletionRequest((f"{i + 1}. " + "Write a list of three words. " * 40,))


@dataclass(frozen=True)
class Forecast:
    """A predicted length in tokens.

    readings: what it was made of, by prompt, if the forecaster learns. arrived_at: of the request,
    in monotonic seconds, if a contract is kept.
    """

    tokens: float
    readings: tuple[Reading, ...] = ()
    arrived_at: float = math.nan


@dataclass(frozen=True)
class Ordered:
    """What a request was ordered by, to be compared with its answer.

    sender: the hash of who sent it, empty if unknown. tokens: the prediction for each of its ``n``
    answers, before the sender's own correction. forecast: None if the recent median stood in.
    """

    sender: bytes
    tokens: float
    n: int = 1
    model: str = ""
    forecast: Forecast | None = None


class Forecaster:
    """A proxy that does not learn. ``history``: it was trained on earlier turns, too."""

    def __init__(self, proxy: Proxy, history: bool = False) -> None:
        self.proxy, self.history = proxy, history

    def forecast(self, request: CompletionRequest) -> Forecast:
        """Forecast the longest answer to a request's prompts; ValueError for impossible lengths."""
        return Forecast(float(self._shipped(request).max()))

    def _shipped(self, request: CompletionRequest) -> FloatArray:
        """Return the proxy's predictions by prompt, (n,)."""
        tokens = self.proxy.predict(request.prompts).tokens
        if len(tokens) != len(request.prompts) or not (np.isfinite(tokens) & (tokens > 0)).all():
            raise ValueError("the proxy's predictions are no lengths")
        return tokens

    def learn(self, model: str, forecast: Forecast, output_tokens: int, cut_off: bool) -> None:
        """Learn from an LLM's finished answer; NotLearnable if this forecaster does not learn."""
        raise NotLearnable("learn_is_none")

    def warm_up(self) -> float:
        """Predict some times; return the median seconds without the first (imports, compiling)."""
        self.forecast(warm_up_request(0))
        seconds = []
        for i in range(WARM_UPS):
            started = time.perf_counter()
            self.forecast(warm_up_request(i + 1))
            seconds.append(time.perf_counter() - started)
        return statistics.median(seconds)

    def state(self) -> bytes:
        """Return what was learned."""
        return b""

    def restore(self, state: bytes) -> None:
        """Invert ``state``; an error for other bytes."""


class Refitting(Forecaster):
    """Learns the lengths of each served LLM.

    One thread may ask for forecasts while another learns.
    """

    def __init__(self, proxy: Proxy, history: bool = False) -> None:
        super().__init__(proxy, history)
        self.learners: OrderedDict[str, Refit] = OrderedDict()
        self._unknown = Refit()  # for LLMs without a finished request

    def forecast(self, request: CompletionRequest) -> Forecast:
        shipped = self._shipped(request)
        learner = self.learners.get(request.model, self._unknown)
        try:
            found = [*map(learner.predict, request.prompts, shipped.tolist())]
        except Exception as error:  # learning must never cost a prediction
            LOG.debug("what was learned is not used (%s)", type(error).__name__)
            return Forecast(float(shipped.max()))
        tokens, readings = zip(*found, strict=True)
        return Forecast(max(tokens), readings)

    def learn(self, model: str, forecast: Forecast, output_tokens: int, cut_off: bool) -> None:
        (reading,) = forecast.readings
        learner = self.learners.setdefault(model, Refit())
        self.learners.move_to_end(model)
        if len(self.learners) > MAX_MODELS:
            self.learners.popitem(last=False)
        learner.learn(reading, output_tokens, cut_off)
        if learner.due:
            learner.refit()

    def warm_up(self) -> float:
        spare = Refit()
        for tokens in range(1, FIRST + 1):
            spare.learn(spare.predict("a", tokens)[1], tokens)
        spare.refit()
        return super().warm_up()

    def state(self) -> bytes:
        from safetensors.numpy import save

        names = np.frombuffer(json.dumps([*self.learners]).encode(), np.uint8)
        arrays = {
            f"{i}.{name}": array
            for i, learner in enumerate(self.learners.values())
            for name, array in learner.arrays().items()
        }
        return save({"names": names, **arrays})

    def restore(self, state: bytes) -> None:
        from safetensors.numpy import load

        arrays = load(state)
        self.learners = OrderedDict()
        for i, model in enumerate(json.loads(arrays["names"].tobytes())):
            own = {name: arrays[f"{i}.{name}"] for name in Refit().arrays()}
            self.learners[model] = Refit.from_arrays(own)


FORECASTERS: dict[str, type[Forecaster]] = {"none": Forecaster, "refit": Refitting}
"""Forecasters by the option ``learn``."""
