"""The number that vLLM takes as ``priority``, smaller first, and how a request gets it."""

import math
import statistics
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ssjf.scheduler import Queue, policy
from ssjf.serving import openai
from ssjf.serving.forecaster import Forecast
from ssjf.serving.metrics import metrics
from ssjf.serving.openai import CompletionRequest, IncomingRequest, NotPredicted
from ssjf.serving.options import ServeOptions
from ssjf.serving.predictor import Predictor
from ssjf.serving.tuner import TYPICAL_TOKENS, Tuner

HEADER = b"x-vllm-priority"  # it goes before the body's priority
ESTIMATE = b"x-ssjf-predicted-tokens"  # for who comes after us; none where nothing was predicted
PER_UNIT = 1000  # priorities are whole numbers: milliseconds, or thousandths of a token
LARGEST = 2**53 - 1  # a whole number that every reader keeps
RECENT = 255  # predictions whose median stands in for a missing one

Predicted = tuple[CompletionRequest, Forecast]


class InFlight:
    """Requests that have got a priority and have not ended, and what was predicted of them."""

    def __init__(self) -> None:
        self._tokens: dict[IncomingRequest, float] = {}
        self.tokens = 0.0

    def __len__(self) -> int:
        return len(self._tokens)

    def enter(self, request: IncomingRequest, tokens: float) -> None:
        """A request of so many predicted tokens goes on to vLLM."""
        self._tokens[request] = tokens
        self.tokens += tokens
        metrics().in_flight_tokens.set(self.tokens)

    def leave(self, request: IncomingRequest) -> None:
        """It has ended, answered or not."""
        self.tokens -= self._tokens.pop(request, 0.0)
        if not self._tokens:
            self.tokens = 0.0  # whatever sums of floats have come to
        metrics().in_flight_tokens.set(self.tokens)


class Keys:
    """Priorities: the scores of a tuner's policy, or else of that of the options, which do not
    change while a request waits. A policy is not told how long the prompt is (0)."""

    def __init__(self, options: ServeOptions, tuner: Tuner | None = None) -> None:
        self._tuner, self.in_flight = tuner, InFlight()
        if tuner is None:
            self._policy = policy(options.policy)
            metrics().say_policy(options.policy, "fixed")

    def priority(self, arrived_at: float, predicted_tokens: float) -> int:
        """The key of a request that arrived at a monotonic clock's seconds."""
        chosen = self._tuner.policy if self._tuner else self._policy
        none, there = np.zeros(1, np.int64), self.in_flight
        queue = Queue(
            np.array([arrived_at]), none, np.array([max(predicted_tokens, 1.0)]), none,
            np.array([len(there)]), np.array([there.tokens]),
        )  # fmt: skip
        score = float(chosen.scores(queue, arrived_at)[0])
        return round(min(max(score * PER_UNIT, 0), LARGEST))


class Prioritiser:
    """Sets priorities. A request without a prediction gets that of the recent median, or of
    ``TYPICAL_TOKENS`` while there is none; never more than its client allows."""

    def __init__(self, options: ServeOptions, predictor: Predictor) -> None:
        self._options, self._predictor = options, predictor
        self._keys = Keys(options, predictor.learner.tuner)
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._respects_priority = options.client_priority == "respect"
        self._respects_limit = options.client_limit == "respect"

    async def prioritise(self, request: IncomingRequest) -> Predicted | None:
        """Read and prioritise a request; NotPredicted leaves its body as it is."""
        request.set_header(ESTIMATE, None)  # no client's word counts as ours
        if self._respects_priority and request.header(HEADER) is not None:
            raise NotPredicted("client_priority")
        try:
            data = await request.body(int(self._options.max_body_mb * 1e6))
            arrived_at, body = time.monotonic(), openai.parsed(data)
        except NotPredicted:
            if not request.disconnected:
                self._set(request, time.monotonic(), self._median())
            raise
        if self._respects_priority and "priority" in body:
            raise NotPredicted("client_priority")
        predicted = await self._predict(body, request.route, arrived_at)
        tokens = predicted[1].tokens if predicted else self._median()
        limit = openai.max_tokens(body, request.route) if self._respects_limit else None
        tokens = min(tokens, limit or math.inf)
        self._set(request, arrived_at, tokens)
        if predicted:
            request.set_header(ESTIMATE, b"%d" % tokens)
        metrics().overhead_seconds.observe(time.monotonic() - arrived_at)
        return predicted

    def _set(self, request: IncomingRequest, arrived_at: float, tokens: float) -> None:
        request.set_header(HEADER, b"%d" % self._keys.priority(arrived_at, tokens))
        self._keys.in_flight.enter(request, max(tokens, 1.0))

    def ended(self, request: IncomingRequest) -> None:
        """A request has ended, whether or not it got a priority here."""
        self._keys.in_flight.leave(request)

    async def _predict(
        self, body: Mapping[str, Any], route: str, arrived_at: float
    ) -> Predicted | None:
        try:
            history = self._predictor.forecaster.history
            request = openai.completion_request(body, route, history)
            forecast = await self._predictor.forecast(request, arrived_at)
        except NotPredicted as why:
            metrics().unpredicted.labels(str(why)).inc()
            return None
        metrics().predictions.inc()
        self._recent.append(forecast.tokens)
        return request, replace(forecast, arrived_at=arrived_at)

    def _median(self) -> float:
        return statistics.median(self._recent or [TYPICAL_TOKENS])
