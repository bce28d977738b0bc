"""Predict in a thread of its own, so that the event loop never waits for a proxy.

Another thread learns from finished requests: that takes long, and no prediction waits for it. Every
mistake in the options is detected when a predictor is loaded, before the first request.
"""

import asyncio
import logging
import statistics
import time
from collections import deque
from concurrent.futures import wait
from functools import partial
from pathlib import Path

from ssjf.errors import InputError
from ssjf.proxy import io
from ssjf.serving.forecaster import FORECASTERS, Forecast, Forecaster, Ordered
from ssjf.serving.metrics import metrics
from ssjf.serving.online import OnlineLearner, StateFile
from ssjf.serving.openai import CompletionRequest, NotPredicted
from ssjf.serving.options import ServeOptions
from ssjf.serving.response import Response
from ssjf.serving.tuner import SLOTS, Tuner
from ssjf.serving.watch import Watch
from ssjf.serving.worker import Worker

MARGIN, TIMED = 4, 21  # a deadline over the median time of this many last predictions
LEAST_DEADLINE, LONGEST_DEADLINE = 0.05, 2.0  # seconds, if none is given
MOST_TO_LEARN = 1024  # answers in the queue of learning, each up to ``TAIL_BYTES``
STOP_SECONDS = 10.0  # for learning to finish when the server stops
LOG = logging.getLogger(__name__)


class Predictor:
    """Calls a forecaster, one request at a time in order of arrival, and has it learn.

    A request goes on without a forecast if that fails or is late.

    Parameters
    ----------
    prediction_seconds: the time of a prediction, which is measured on while serving.
    deadline_seconds: how long a request waits for its prediction; if None that depends on that
    time and on the requests before it.
    """

    def __init__(
        self, forecaster: Forecaster, learner: OnlineLearner, prediction_seconds: float,
        deadline_seconds: float | None = None,
    ) -> None:  # fmt: skip
        self.forecaster, self.learner, self.watch = forecaster, learner, Watch()
        self._deadline, self._typical = deadline_seconds, prediction_seconds
        self._seconds = deque([prediction_seconds], TIMED)
        self._predicting = Worker("ssjf-predictor")
        self._learning = Worker("ssjf-learner", MOST_TO_LEARN)
        self._waiting, self._failing = 0, False
        self._saving: asyncio.TimerHandle | None = None

    def deadline_seconds(self, before: int) -> float:
        """Return how long a request waits for its prediction, behind ``before`` others."""
        if self._deadline is not None:
            return self._deadline
        expected = self._typical * (before + 1)
        return min(max(MARGIN * expected, LEAST_DEADLINE), LONGEST_DEADLINE)

    async def forecast(self, request: CompletionRequest, arrived_at: float) -> Forecast:
        """Forecast a request; NotPredicted if there is no forecast at its deadline."""
        now = time.monotonic()
        try:
            forecast = await self._in_time(request, arrived_at)
        except NotPredicted as why:
            self.watch.note(str(why))
            raise
        self.watch.note("")
        metrics().prediction_seconds.observe(time.monotonic() - now)
        return forecast

    async def _in_time(self, request: CompletionRequest, arrived_at: float) -> Forecast:
        size = sum(map(len, request.prompts))
        call = self._predicting.submit(partial(self._forecast, request), size)
        if call is None:
            raise NotPredicted("queue_full")
        answer, before = asyncio.wrap_future(call), self._waiting
        self._waiting += 1
        try:
            # The deadline may move: those before it may take longer than was expected
            while not call.done():
                left = arrived_at + self.deadline_seconds(before) - time.monotonic()
                if left <= 0:
                    raise NotPredicted("deadline")
                await asyncio.wait([answer], timeout=left)
            return await answer  # at once, or as soon as a busy loop hears of it
        finally:
            self._waiting -= 1
            answer.cancel()  # the call, too, if it has not begun: others wait behind it

    def learn(self, ordered: Ordered, response: Response) -> None:
        """Queue a whole response for learning, and save some time later."""
        learn = partial(self.learner.learn, ordered, response, time.monotonic())
        if self._learning.submit(learn) is None:
            metrics().not_learned.labels("queue_full").inc()
        elif self._saving is None:
            loop = asyncio.get_running_loop()
            self._saving = loop.call_later(self.learner.save_seconds, self._save)

    def stop(self) -> None:
        """Finish learning, and save."""
        if (saved := self._learning.submit(self.learner.save)) is not None:
            wait([saved], STOP_SECONDS)

    def _save(self) -> None:
        self._saving = None
        self._learning.submit(self.learner.save)

    def _forecast(self, request: CompletionRequest) -> Forecast:
        started = time.perf_counter()
        try:
            forecast = self.forecaster.forecast(request)
        except BaseException as error:  # even SystemExit of a library
            metrics().failures.inc()
            if not self._failing:  # an error's message may quote a prompt
                LOG.warning("the predictor fails (%s)", type(error).__name__)
            self._failing = True
            raise NotPredicted("predictor_error") from None
        self._seconds.append(time.perf_counter() - started)
        self._typical = statistics.median(self._seconds)
        self._failing = False
        return forecast


def load(options: ServeOptions, slots: int = SLOTS) -> Predictor:
    """Return a warm predictor with the saved state; InputError if there can be none.

    slots: max_num_seqs of all servers together, unless the middleware reads it from its server.
    """
    forecaster, state = check(options)
    try:
        seconds = forecaster.warm_up()
    except Exception as error:
        raise InputError(
            f"proxy {options.proxy} does not predict ({type(error).__name__}: {error})"
        ) from None
    if state is not None and (saved := state.read()) is not None:
        try:
            forecaster.restore(saved)
            LOG.info("state %s is restored", state.path)
        except Exception as error:  # of another version
            state.put_aside(f"{type(error).__name__}: {error}")
    max_bytes = int(1e6 * options.max_state_mb)
    tuner = None if options.policy else Tuner(options.contract, slots)
    learner = OnlineLearner(forecaster, state, options.save_seconds, max_bytes, tuner)
    deadline = None if options.deadline_ms is None else options.deadline_ms / 1e3
    predictor = Predictor(forecaster, learner, seconds, deadline)
    LOG.info(
        "a prediction takes %.3g ms; requests wait up to %.3g ms for it", 1e3 * seconds,
        1e3 * predictor.deadline_seconds(0),
    )  # fmt: skip
    return predictor


def check(options: ServeOptions) -> tuple[Forecaster, StateFile | None]:
    """Return forecaster and state file; InputError that a server would meet only minutes later."""
    proxy, card = io.load(options.proxy), io.card(options.proxy)
    forecaster = FORECASTERS[options.learn](proxy, card.get("text") == "history")
    if not options.state:
        return forecaster, None
    state = StateFile(Path(options.state), options.learn, card["sha256"])
    state.check()
    return forecaster, state
