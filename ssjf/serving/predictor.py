"""One thread predicts, in micro-batches, so that the event loop never waits for a proxy."""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ssjf.serving.bodies import Unpredicted
from ssjf.serving.circuit_breaker import Pause
from ssjf.serving.forecasting import Forecast, Forecaster
from ssjf.serving.metrics import metrics
from ssjf.serving.online import Lesson, Teacher
from ssjf.serving.openai import Asked

MOST_WAITING = 4096
STOP_SECONDS = 10.0  # that the thread has to finish what it does when the server stops
LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Job:
    asked: Asked
    answer: "asyncio.Future[Forecast]"


class Predictor:
    """Asks a forecaster from a thread of its own, and teaches it there.

    Where the forecaster fails, requests go on without a prediction; if it fails again and again
    it is left alone for a while (see ``Pause``). A thread that has died is started again.
    """

    def __init__(self, forecaster: Forecaster, teacher: Teacher, max_batch: int) -> None:
        self._forecaster, self._teacher, self._max_batch = forecaster, teacher, max_batch
        self._queue: queue.SimpleQueue[_Job | Lesson | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._pause = Pause()

    @property
    def history(self) -> bool:
        """Whether it reads the turns before a prompt."""
        return self._forecaster.history

    async def forecast(self, asked: Asked, deadline: float) -> Forecast:
        """The forecast; Unpredicted if it is not there at this time of the monotonic clock."""
        if self._pause:
            raise Unpredicted("predictor_paused")
        if self._queue.qsize() >= MOST_WAITING:
            raise Unpredicted("queue_full")
        self._start()
        now, loop = time.monotonic(), asyncio.get_running_loop()
        job = _Job(asked, loop.create_future())
        late = loop.call_later(deadline - now, _give, job.answer, "deadline")
        self._queue.put(job)
        try:
            found = await job.answer
        finally:
            late.cancel()
        metrics().prediction_seconds.observe(time.monotonic() - now)
        return found

    def teach(self, lesson: Lesson) -> None:
        """Learn from a request when the thread comes to it."""
        if self._queue.qsize() >= MOST_WAITING:
            metrics().not_learned.labels("queue_full").inc()
        else:
            self._queue.put(lesson)

    def stop(self) -> None:
        """Learn what waits, save, end the thread."""
        if self._thread is not None and self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(STOP_SECONDS)
        else:
            self._teacher.save()

    def _start(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        if self._thread is not None:
            metrics().restarts.inc()
        self._thread = threading.Thread(target=self._run, name="ssjf-predictor", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        going_on = True
        while going_on:
            taken = self._take()
            going_on = None not in taken
            self._answer([job for job in taken if isinstance(job, _Job) and not job.answer.done()])
            for lesson in taken:
                if isinstance(lesson, Lesson):
                    self._teacher.teach(lesson)
            if not going_on or self._teacher.due_in() == 0:
                self._teacher.save()

    def _take(self) -> list[_Job | Lesson | None]:
        """What waits, at most a batch; nothing if a save comes to be due first."""
        try:
            taken = [self._queue.get(timeout=self._teacher.due_in())]
        except queue.Empty:
            return []
        while len(taken) < self._max_batch and not self._queue.empty():
            taken.append(self._queue.get())
        return taken

    def _answer(self, jobs: Sequence[_Job]) -> None:
        if not jobs:
            return
        if self._pause:
            return _deliver(jobs, ["predictor_paused"] * len(jobs))
        try:
            found = self._forecaster.forecast([job.asked for job in jobs])
        except Exception as error:
            if len(jobs) > 1:  # one prompt may be to blame
                for job in jobs:
                    self._answer([job])
                return
            self._failed(jobs, error, fatally=False)
        except BaseException as error:
            self._failed(jobs, error, fatally=True)
            raise
        else:
            self._pause.succeeded()
            _deliver(jobs, found)

    def _failed(self, jobs: Sequence[_Job], error: BaseException, fatally: bool) -> None:
        metrics().failures.inc()
        if seconds := self._pause.failed(fatally):
            # An error's own words may quote a prompt.
            LOG.warning("the predictor fails (%s), paused for %g s", type(error).__name__, seconds)
        _deliver(jobs, ["predictor_error"] * len(jobs))


def _deliver(jobs: Sequence[_Job], found: Sequence[Forecast | str]) -> None:
    """Forecasts, or reasons why there are none, to the loops that wait for them."""
    answers = [job.answer for job in jobs]
    for loop in {answer.get_loop() for answer in answers}:
        pairs = [p for p in zip(answers, found, strict=True) if p[0].get_loop() is loop]
        if not loop.is_closed():
            loop.call_soon_threadsafe(_give_all, pairs)


def _give_all(pairs: Sequence[tuple["asyncio.Future[Forecast]", Forecast | str]]) -> None:
    for answer, found in pairs:
        _give(answer, found)


def _give(answer: "asyncio.Future[Forecast]", found: Forecast | str) -> None:
    if answer.done():
        return
    if isinstance(found, str):
        answer.set_exception(Unpredicted(found))
    else:
        answer.set_result(found)
