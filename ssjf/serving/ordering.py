"""From a request to its place in the server's queue: read, predict, write ``priority``."""

import math
import statistics
import time
from collections import deque
from dataclasses import dataclass

from ssjf.serving.bodies import Body, Unpredicted
from ssjf.serving.forecasting import Forecast
from ssjf.serving.metrics import metrics
from ssjf.serving.openai import Asked, asked, limit
from ssjf.serving.options import ServeOptions
from ssjf.serving.predictor import Predictor
from ssjf.serving.priority import Keys
from ssjf.serving.receiving import PRIORITY_HEADER, Incoming

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
RECENT = 255  # predictions whose median stands in for one that is missing


@dataclass(frozen=True)
class Predicted:
    """What a request asks, and its forecast."""

    asked: Asked
    forecast: Forecast


class Ordering:
    """Orders requests. One without a prediction is taken for one of the recent median, or half of
    ``longest_tokens`` while there is none; either way no longer than its client allows."""

    def __init__(self, options: ServeOptions, predictor: Predictor) -> None:
        self._options, self._predictor, self._keys = options, predictor, Keys(options)
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._respects_priority = options.client_priority == "respect"
        self._respects_limit = options.client_limit == "respect"

    async def order(self, request: Incoming) -> Predicted | None:
        """Read the request and set its priority, or leave it as it is."""
        if self._respects_priority and request.header(PRIORITY_HEADER) is not None:
            _count("client_priority")
            return None
        try:
            data = await request.body(self._options.max_body_bytes)
            arrived_at = time.monotonic()
            body = Body.of(data)
        except Unpredicted as why:
            self._unread(request, why.reason)
            return None
        if self._respects_priority and "priority" in body.members:
            _count("client_priority")
            return None
        chat = request.scope["path"].endswith(CHAT)
        found = await self._predict(body, chat, arrived_at)
        tokens = found.forecast.tokens if found else self._middle()
        most = limit(body.members, chat) if self._respects_limit else None
        priority = self._keys.priority(arrived_at, min(tokens, most or math.inf))
        request.set_body(body.with_priority(priority))
        if request.header(PRIORITY_HEADER) is not None:
            request.set_header(PRIORITY_HEADER, str(priority).encode())
        metrics().overhead_seconds.observe(time.monotonic() - arrived_at)
        return found

    def _unread(self, request: Incoming, reason: str) -> None:
        """A body that cannot be written to goes on as it is; the header says its priority."""
        if not request.gone:
            priority = self._keys.priority(time.monotonic(), self._middle())
            request.set_header(PRIORITY_HEADER, str(priority).encode())
        _count(reason)

    async def _predict(self, body: Body, chat: bool, arrived_at: float) -> Predicted | None:
        try:
            question = asked(body.members, chat, self._predictor.history)
            deadline = arrived_at + self._options.deadline_ms / 1000
            forecast = await self._predictor.forecast(question, deadline)
        except Unpredicted as why:
            _count(why.reason)
            return None
        metrics().predictions.inc()
        self._recent.append(forecast.tokens)
        return Predicted(question, forecast)

    def _middle(self) -> float:
        return statistics.median(self._recent or [self._options.longest_tokens / 2])


def _count(reason: str) -> None:
    metrics().unpredicted.labels(reason).inc()
