"""Predictions from a thread of their own: the event loop never waits for a proxy.

Every mistake in the options is detected when a predictor is loaded, before the first request.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from ssjf.errors import InputError
from ssjf.proxy import io
from ssjf.serving.forecaster import FORECASTERS, Forecast, Forecaster
from ssjf.serving.metrics import metrics
from ssjf.serving.online import OnlineLearner, StateFile
from ssjf.serving.openai import CompletionRequest, NotPredicted
from ssjf.serving.options import ServeOptions
from ssjf.serving.response import Response

FAILURES_IN_A_ROW = 3
FIRST_SECONDS, LONGEST_SECONDS = 0.1, 30.0
MAX_QUEUE = 4096
DEADLINE_PREDICTIONS, LEAST_DEADLINE_MS = 4, 20.0
STOP_SECONDS = 10.0  # that the thread has to finish when the server stops
LOG = logging.getLogger(__name__)


class CircuitBreaker:
    """Opens for 0.1 s at three failures in a row, twice as long at each more, up to 30 s."""

    def __init__(self) -> None:
        self._failures, self._until = 0, 0.0

    @property
    def open(self) -> bool:
        """Whether nothing is to be tried now."""
        return time.monotonic() < self._until

    def failed(self) -> float:
        """Count a failure; the seconds that the circuit opens for."""
        self._failures += 1
        more = self._failures - FAILURES_IN_A_ROW
        if more < 0:
            return 0.0
        seconds = min(FIRST_SECONDS * 2.0 ** min(more, 30), LONGEST_SECONDS)
        self._until = time.monotonic() + seconds
        return seconds

    def succeeded(self) -> None:
        """Count failures anew."""
        self._failures = 0


class Predictor:
    """Calls a forecaster, one request at a time, and has it learn, in one thread.

    A request whose forecast fails, or is not there in ``deadline_seconds``, goes on without. The
    thread starts on first use: a process that is forked before has one of its own.
    """

    def __init__(
        self, forecaster: Forecaster, learner: OnlineLearner, deadline_seconds: float
    ) -> None:
        self.forecaster, self._learner = forecaster, learner
        self.deadline_seconds = deadline_seconds
        self._thread = ThreadPoolExecutor(1, "ssjf-predictor")
        self._room = threading.Semaphore(MAX_QUEUE)
        self._breaker = CircuitBreaker()
        self._saving: asyncio.TimerHandle | None = None

    async def forecast(self, request: CompletionRequest, arrived_at: float) -> Forecast:
        """The forecast; NotPredicted if there is none at the deadline."""
        if self._breaker.open:
            raise NotPredicted("predictor_paused")
        now = time.monotonic()
        answer = self._submit(self._forecast, request)
        if answer is None:
            raise NotPredicted("queue_full")
        try:
            async with asyncio.timeout(arrived_at + self.deadline_seconds - now):
                forecast = await asyncio.wrap_future(answer)
        except TimeoutError:
            raise NotPredicted("deadline") from None
        metrics().prediction_seconds.observe(time.monotonic() - now)
        return forecast

    def learn(self, request: CompletionRequest, forecast: Forecast, response: Response) -> None:
        """Learn from a whole response when the thread comes to it, and save some time later."""
        if self._submit(self._learner.learn, request, forecast, response) is None:
            metrics().not_learned.labels("queue_full").inc()
        elif self._saving is None:
            loop = asyncio.get_running_loop()
            self._saving = loop.call_later(self._learner.save_seconds, self._save)

    def stop(self) -> None:
        """Finish what is queued, and save."""
        wait([self._thread.submit(self._learner.save)], STOP_SECONDS)

    def _save(self) -> None:
        self._saving = None
        self._thread.submit(self._learner.save)

    def _submit(self, function: Callable[..., Any], *given: Any) -> Future[Any] | None:
        """A call in the thread, unless too many wait for it."""
        if not self._room.acquire(blocking=False):
            return None
        call = self._thread.submit(function, *given)
        call.add_done_callback(lambda _: self._room.release())
        return call

    def _forecast(self, request: CompletionRequest) -> Forecast:
        if self._breaker.open:
            raise NotPredicted("predictor_paused")
        try:
            forecast = self.forecaster.forecast(request)
        except BaseException as error:  # even SystemExit of a library must not end the thread
            metrics().failures.inc()
            if seconds := self._breaker.failed():
                # An error's message may quote a prompt.
                LOG.warning("the predictor fails (%s), paused for %g s", type(error).__name__,
                            seconds)  # fmt: skip
            raise NotPredicted("predictor_error") from None
        self._breaker.succeeded()
        return forecast


def load(options: ServeOptions) -> Predictor:
    """A predictor that is warm and has the saved state; InputError if there can be none."""
    forecaster, state = check(options)
    try:
        seconds = forecaster.warm_up()
    except Exception as error:
        raise InputError(
            f"proxy {options.proxy} does not predict ({type(error).__name__}: {error})"
        ) from None
    if state is not None:
        _restore(forecaster, state)
    ms = options.deadline_ms or max(1e3 * DEADLINE_PREDICTIONS * seconds, LEAST_DEADLINE_MS)
    LOG.info("a prediction takes %.3g ms; requests wait up to %.3g ms for it", 1e3 * seconds, ms)
    max_bytes = int(1e6 * options.max_state_mb)
    learner = OnlineLearner(forecaster, state, options.save_seconds, max_bytes)
    return Predictor(forecaster, learner, ms / 1e3)


def check(options: ServeOptions) -> tuple[Forecaster, StateFile | None]:
    """Forecaster and state file; InputError, of which a server would learn only minutes later."""
    proxy, card = io.load(options.proxy), io.card(options.proxy)
    if options.learn == "retrieval" and not hasattr(proxy, "learn"):
        raise InputError(
            f"proxy {options.proxy} is no retrieval proxy, which learn 'retrieval' needs; "
            "learn 'calibration' suits every proxy"
        )
    forecaster = FORECASTERS[options.learn](proxy, card.get("text") == "history")
    if not options.state:
        return forecaster, None
    state = StateFile(Path(options.state), options.learn, card["sha256"])
    state.check()
    return forecaster, state


def _restore(forecaster: Forecaster, state: StateFile) -> None:
    if (saved := state.read()) is None:
        return
    try:
        forecaster.restore(saved)
    except Exception as error:  # of another version
        state.put_aside(f"{type(error).__name__}: {error}")
    else:
        LOG.info("state %s is restored", state.path)
