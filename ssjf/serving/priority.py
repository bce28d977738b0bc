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
from ssjf.serving.forecaster import Forecast, Ordered
from ssjf.serving.metrics import metrics
from ssjf.serving.openai import CompletionRequest, IncomingRequest, NotPredicted
from ssjf.serving.options import PER_UNIT, ServeOptions
from ssjf.serving.predictor import Predictor
from ssjf.serving.senders import ApiKeys
from ssjf.serving.tuner import TYPICAL_TOKENS, Tuner

HEADER = b"x-vllm-priority"  # vLLM prefers it to the body's priority
ESTIMATE = b"x-ssjf-predicted-tokens"  # for routers and servers behind us
LARGEST = 2**53 - 1  # the largest whole number that every JSON reader keeps
RECENT = 255  # predictions whose median stands in for a missing one
MOST_SHIFT = 10  # seconds by which a client's priority counts at most, if respected
MOST_BODY_BYTES = 2**30  # of a body that a priority is written to


class InFlight:
    """Requests that have a priority and have not ended, and their predicted tokens together."""

    def __init__(self) -> None:
        self._tokens: dict[IncomingRequest, float] = {}
        self.tokens = 0.0

    def __len__(self) -> int:
        return len(self._tokens)

    def enter(self, request: IncomingRequest, tokens: float) -> None:
        """Note a request that goes on to vLLM, with its predicted tokens."""
        self._tokens[request] = tokens
        self.tokens += tokens
        metrics().in_flight_tokens.set(self.tokens)

    def leave(self, request: IncomingRequest) -> None:
        """Note that a request has ended, answered or not."""
        self.tokens -= self._tokens.pop(request, 0.0)
        if not self._tokens:
            self.tokens = 0.0  # without the rounding of sums
        metrics().in_flight_tokens.set(self.tokens)


class Keys:
    """Priorities: the scores of the tuner's policy, or else of the options', which do not change
    while a request waits. Prompts count as 0 tokens."""

    def __init__(self, options: ServeOptions, tuner: Tuner | None = None) -> None:
        self._tuner, self.in_flight = tuner, InFlight()
        if tuner is None:
            self._policy = policy(options.policy)
            metrics().say_policy(options.policy, "fixed")

    def priority(self, arrived_at: float, predicted_tokens: float) -> int:
        """Return the priority of a request; arrived_at in monotonic seconds."""
        chosen = self._tuner.policy if self._tuner else self._policy
        zero, in_flight = np.zeros(1, np.int64), self.in_flight
        queue = Queue(
            np.array([arrived_at]), zero, np.array([max(predicted_tokens, 1.0)]), zero,
            np.array([len(in_flight)]), np.array([in_flight.tokens]),
        )  # fmt: skip
        score = float(chosen.scores(queue, arrived_at)[0])
        return round(min(max(score * PER_UNIT, 0), LARGEST))


class Prioritiser:
    """Sets priorities.

    A request without a prediction gets that of ``openai.by_metadata``, of the recent median, or of
    ``TYPICAL_TOKENS`` while there is none; never more than its client allows, nor less than it
    insists on. Predictions of a sender whose answers take longer are multiplied accordingly.
    """

    def __init__(self, options: ServeOptions, predictor: Predictor) -> None:
        self._options, self._predictor = options, predictor
        self._senders, self.api_keys = predictor.learner.senders, ApiKeys()
        self._keys = Keys(options, predictor.learner.tuner)
        self.in_flight = self._keys.in_flight
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._respects_limit = options.client_limit == "respect"
        self._last = 0  # the priority given last, for requests that get none of their own

    async def prioritise(self, request: IncomingRequest) -> Ordered:
        """Read and prioritise a request; NotPredicted if its answer is not to be noted."""
        given, trusted = request.header(HEADER), self._options.client_priority == "trust"
        if trusted and given is not None:
            request.set_headers({ESTIMATE: None})
            raise NotPredicted("client_priority")
        # From here on no header of the client's passes as ours, whatever happens
        request.set_headers({ESTIMATE: None, HEADER: b"%d" % self._last})
        if not self.api_keys.take(request):
            raise NotPredicted("unauthorised")
        try:
            data = await request.body(int(self._options.max_body_mb * 1e6))
            arrived_at, body = time.monotonic(), openai.parsed(data)
        except NotPredicted as why:
            if request.disconnected:
                raise
            metrics().unpredicted.labels(str(why)).inc()
            return self._ordered(request, {}, time.monotonic(), None, given)
        if trusted and "priority" in body:
            request.set_headers({HEADER: None})
            raise NotPredicted("client_priority")
        asked = await self._asked(body, request.route, arrived_at)
        ordered = self._ordered(request, body, arrived_at, asked, given)
        metrics().overhead_seconds.observe(time.monotonic() - arrived_at)
        return ordered

    async def guard(self, request: IncomingRequest) -> None:
        """Replace a client's priority on another route, and the default 0, which goes first."""
        path, given = request.scope["path"], request.header(HEADER)
        if self._options.client_priority == "trust":
            return
        if given is not None or path.endswith(openai.HEARD):
            request.set_headers({HEADER: b"%d" % self._last})
        if path.endswith(openai.UNHEARD) and self.api_keys.take(request):
            body = await request.body(MOST_BODY_BYTES, encoded=True)
            priority = self._keys.priority(time.monotonic(), self._median())
            request.replace_body(openai.with_priority(body, b"%d" % priority))

    async def _asked(
        self, body: Mapping[str, Any], route: str, arrived_at: float
    ) -> tuple[CompletionRequest, Forecast] | None:
        """Return what a body asks for and its forecast, or None."""
        try:
            history = self._predictor.forecaster.history
            request = openai.completion_request(body, route, history)
            forecast = await self._predictor.forecast(request, arrived_at)
        except NotPredicted as why:
            metrics().unpredicted.labels(str(why)).inc()
            return None
        metrics().predictions.inc()
        self._recent.append(forecast.tokens)
        return request, forecast

    def _ordered(
        self, request: IncomingRequest, body: Mapping[str, Any], arrived_at: float,
        asked: tuple[CompletionRequest, Forecast] | None, given: bytes | None,
    ) -> Ordered:  # fmt: skip
        """Set the priority; return what it was made of, to be compared with the answer."""
        sender = self.api_keys.sender(request, body)
        read = body and self._respects_limit  # a body that was not read has no limits
        limit = openai.max_tokens(body, request.route) if read else None
        predicted = asked[1].tokens if asked else openai.by_metadata(body) or self._median()
        predicted = max(predicted, openai.least_tokens(body, limit) if read else 0)
        factor, most = self._senders.factor(sender), limit or math.inf
        tokens = min(predicted * factor, most)
        priority = self._shifted(self._keys.priority(arrived_at, tokens), given, body)
        request.set_headers({
            HEADER: b"%d" % priority, ESTIMATE: b"%d" % tokens if asked else None,
        })  # fmt: skip
        self.in_flight.enter(request, max(tokens, 1.0))
        if asked is None:
            return Ordered(sender, min(predicted, most), openai.answers(body))
        forecast = replace(asked[1], tokens=predicted * factor, arrived_at=arrived_at)
        return Ordered(sender, min(predicted, most), asked[0].n, asked[0].model, forecast)

    def _shifted(self, priority: int, given: bytes | None, body: Mapping[str, Any]) -> int:
        """Shift a priority by the client's, in seconds, if respected, within ``MOST_SHIFT``."""
        self._last = priority
        if self._options.client_priority != "respect":
            return priority
        seconds = min(max(_client_priority(given, body), -MOST_SHIFT), MOST_SHIFT)
        return min(max(priority + PER_UNIT * seconds, 0), LARGEST)

    def _median(self) -> float:
        return statistics.median(self._recent or [TYPICAL_TOKENS])


def _client_priority(header: bytes | None, body: Mapping[str, Any]) -> int:
    """Return the client's priority as vLLM reads it: the header's, or else the body's."""
    try:
        return int(header or b"")
    except ValueError:
        asked = body.get("priority")
        return asked if type(asked) is int else 0
