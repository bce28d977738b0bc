"""What finished requests teach, and when it is saved."""

import logging
import math
import time
from dataclasses import dataclass

from ssjf.serving.forecasting import Forecast, Forecaster
from ssjf.serving.metrics import metrics
from ssjf.serving.openai import Asked
from ssjf.serving.response import Stream, Untaught, Whole
from ssjf.serving.state import StateFile

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lesson:
    """A predicted request, and what watched its answer to the end."""

    asked: Asked
    forecast: Forecast
    answer: Whole | Stream


class Teacher:
    """Teaches a forecaster, and saves what it has learned at most every ``save_seconds``."""

    def __init__(
        self, forecaster: Forecaster, state: StateFile | None, save_seconds: float, most_bytes: int
    ) -> None:
        self._forecaster, self._state = forecaster, state
        self._save_seconds, self._most_bytes = save_seconds, most_bytes
        self._saved_at, self._news, self._outcome = time.monotonic(), False, "saved"

    def teach(self, lesson: Lesson) -> None:
        """Learn from a request, or count why not."""
        try:
            self._teach(lesson)
        except Untaught as why:
            metrics().not_learned.labels(why.reason).inc()
        except Exception as error:  # a request must never suffer from it
            metrics().not_learned.labels("error").inc()
            LOG.debug("nothing was learned (%s)", type(error).__name__)
        else:
            metrics().learned.inc()
            self._news = True

    def _teach(self, lesson: Lesson) -> None:
        asked, forecast, tokens = lesson.asked, lesson.forecast, lesson.answer.length()
        metrics().log_ratio.observe(abs(math.log(forecast.tokens / tokens)))
        if asked.limit is not None and asked.limit < forecast.high:
            raise Untaught("limited")  # of those like it only the short ones would be seen
        self._forecaster.learn(asked, forecast.raw, tokens)

    def due_in(self) -> float | None:
        """Seconds until there is something to save; None while there is nothing."""
        if self._state is None or not self._news:
            return None
        return max(self._saved_at + self._save_seconds - time.monotonic(), 0.0)

    def save(self) -> None:
        """Write the state if anything was learned since; what fails is counted, and told once."""
        if self._state is None or not self._news:
            return
        outcome, why = "saved", ""
        try:
            state = self._forecaster.state()
            if len(state) > self._most_bytes:
                outcome, why = "too_large", f"{len(state)} bytes are more than {self._most_bytes}"
            else:
                self._state.write(state)
        except Exception as error:
            outcome, why = "failed", str(error)
        if why and outcome != self._outcome:
            LOG.warning("state %s is not saved: %s", self._state.path, why)
        metrics().saves.labels(outcome).inc()
        self._saved_at, self._news, self._outcome = time.monotonic(), False, outcome
