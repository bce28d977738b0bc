"""Online learning: from finished requests to the forecaster, and to the state file."""

import logging
import math
import time
from dataclasses import dataclass

from ssjf.serving.forecaster import Forecast, Forecaster
from ssjf.serving.metrics import metrics
from ssjf.serving.openai import CompletionRequest
from ssjf.serving.response import NotLearnable, Response
from ssjf.serving.state import StateFile

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Observation:
    """A predicted request with its whole response."""

    request: CompletionRequest
    forecast: Forecast
    response: Response


class OnlineLearner:
    """Has a forecaster learn, and saves its state at most every ``save_seconds``."""

    def __init__(
        self, forecaster: Forecaster, state: StateFile | None, save_seconds: float, max_bytes: int
    ) -> None:
        self._forecaster, self._state = forecaster, state
        self._save_seconds, self._max_bytes = save_seconds, max_bytes
        self._saved_at, self._changed, self._problem = time.monotonic(), False, ""

    def learn(self, observation: Observation) -> None:
        """Learn from an observation, or count why not."""
        try:
            self._learn(observation)
        except NotLearnable as why:
            metrics().not_learned.labels(str(why)).inc()
        except Exception as error:  # a request must never suffer from it
            metrics().not_learned.labels("error").inc()
            LOG.debug("nothing was learned (%s)", type(error).__name__)
        else:
            metrics().learned.inc()
            self._changed = True

    def _learn(self, observation: Observation) -> None:
        request, forecast = observation.request, observation.forecast
        tokens = observation.response.output_tokens()
        metrics().log_ratio.observe(abs(math.log(forecast.tokens / tokens)))
        if request.max_tokens is not None and request.max_tokens < forecast.high:
            raise NotLearnable("limited")  # of such requests only the short ones would be seen
        self._forecaster.learn(request, forecast.raw, tokens)

    def due_in(self) -> float | None:
        """Seconds until the state is to be saved; None while it has not changed."""
        if self._state is None or not self._changed:
            return None
        return max(self._saved_at + self._save_seconds - time.monotonic(), 0.0)

    def save(self) -> None:
        """Save the state if it has changed; a failure is counted, and logged the first time."""
        if self._state is None or not self._changed:
            return
        outcome, problem = self._write(self._state)
        if problem and outcome != self._problem:
            LOG.warning("state %s is not saved: %s", self._state.path, problem)
        metrics().saves.labels(outcome).inc()
        self._saved_at, self._changed, self._problem = time.monotonic(), False, outcome

    def _write(self, file: StateFile) -> tuple[str, str]:
        """Outcome and problem of a save."""
        try:
            state = self._forecaster.state()
            if len(state) > self._max_bytes:
                return "too_large", f"{len(state)} bytes are more than {self._max_bytes}"
            file.write(state)
        except Exception as error:
            return "failed", str(error)
        return "saved", ""
