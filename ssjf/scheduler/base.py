"""A policy: a score per request, lowest first, from what is known at the time of the decision."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ssjf.errors import InputError
from ssjf.request import FloatArray, IntArray


@dataclass(frozen=True)
class Queue:
    """The requests that a policy orders, as columns of shape (n,), without true output lengths.

    predicted_tokens: what the predictor returned (tokens, or anything that grows with them).
    in_flight, in_flight_tokens: how many requests were waiting or running when each request
        arrived, and the sum of their predictions; only ``AtArrival`` scores get these.
    """

    arrived_at: FloatArray
    prompt_tokens: IntArray
    predicted_tokens: FloatArray
    generated_tokens: IntArray
    in_flight: IntArray | None = None
    in_flight_tokens: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.arrived_at)


Score = Callable[[Queue, float], FloatArray]
Bound = Callable[[Queue], FloatArray]

MOST_PARAMETERS = 8


@dataclass(frozen=True)
class Compiled:
    """A score of one request in plain numbers, which the simulator compiles.

    function: of four numbers (see the subclasses) and the up to eight finite parameters, made of
        ``math`` and arithmetic alone.
    """

    function: Callable[..., float]
    parameters: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.parameters) > MOST_PARAMETERS or not np.isfinite(self.parameters).all():
            raise InputError(
                f"a compiled score takes up to {MOST_PARAMETERS} finite parameters, "
                f"not {self.parameters}"
            )

    def _scores(self, columns: tuple[np.ndarray[Any, Any], ...], *rest: float) -> FloatArray:
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return np.array([self.function(*row, *rest, *self.parameters) for row in rows])


@dataclass(frozen=True)
class Moving(Compiled):
    """A compiled score that may change while a request waits.

    function: ``(arrived_at, predicted_tokens, generated_tokens, now, *parameters) -> float``.
    """

    def __call__(self, queue: Queue, now: float) -> FloatArray:
        return self._scores((queue.arrived_at, queue.predicted_tokens, queue.generated_tokens), now)


@dataclass(frozen=True)
class AtArrival(Compiled):
    """A key computed when a request arrives, from the requests in flight then; it never changes.

    function: ``(arrived_at, predicted_tokens, in_flight, in_flight_tokens, *parameters) -> float``;
        for the last two see ``Queue``. On a single simulated machine a request arrives when the
        scheduler first sees it, at the end of a step; in a cluster, when it is routed.
    """

    def __call__(self, queue: Queue, now: float) -> FloatArray:
        if queue.in_flight is None or queue.in_flight_tokens is None:
            raise InputError(
                "a key made at arrival needs the requests in flight, which only who serves knows"
            )
        in_flight = (queue.in_flight, queue.in_flight_tokens)
        return self._scores((queue.arrived_at, queue.predicted_tokens, *in_flight))


@dataclass(frozen=True)
class Policy:
    """An ordering of waiting requests.

    Parameters
    ----------
    name: its name in tables and figures.
    score: ``(queue, now_seconds) -> (n,)``; the lowest is served first, ties by arrival.
    in_time: how a request's score changes while it waits. ``constant`` (a static key, computed
        once: full speed, and a vLLM ``priority``), ``linear``, or ``any`` (computed anew at every
        decision: right for every function, and slowest).
    promote_after: ``(queue) -> (n,)`` seconds of waiting after which a request is promoted: it
        goes before all that are not, by arrival. Only with ``in_time="constant"``.
    uses_prediction: False for an order that reads no predicted length.
    preempts: may a waiting request take the place of a running one whose score is strictly
        higher? (In the simulator; vLLM preempts only when short of KV.)
    victims: score of a running request, if it differs from ``score``; the highest is preempted
        first. Needs a ``Moving`` score with the same parameters.
    """

    name: str
    score: Score
    in_time: Literal["constant", "linear", "any"] = "any"
    promote_after: Bound | None = None
    uses_prediction: bool = True
    preempts: bool = False
    victims: Moving | None = None

    def __post_init__(self) -> None:
        if self.in_time not in ("constant", "linear", "any"):
            raise InputError(
                f"policy {self.name}: in_time is {self.in_time!r}; "
                "it must be 'constant', 'linear' or 'any'"
            )
        if self.made_at_arrival:
            object.__setattr__(self, "in_time", "constant")
        if self.promote_after is not None and (self.in_time != "constant" or self.made_at_arrival):
            raise InputError(
                f"policy {self.name}: promote_after needs in_time 'constant', and no key AtArrival"
            )
        if self.victims is not None and (
            not isinstance(self.score, Moving) or self.victims.parameters != self.score.parameters
        ):
            raise InputError(
                f"policy {self.name}: victims needs a Moving score with the same parameters"
            )

    @property
    def made_at_arrival(self) -> bool:
        """Does its key depend on the requests in flight when a request arrives?"""
        return isinstance(self.score, AtArrival)

    @property
    def is_static(self) -> bool:
        """Is it a key that never changes, which a stock vLLM takes as ``priority``?"""
        return self.in_time == "constant" and self.promote_after is None and not self.preempts

    def scores(self, queue: Queue, now: float) -> FloatArray:
        """The scores, shape (n,); raises InputError unless each request has one number."""
        try:
            scores = np.asarray(self.score(queue, now), np.float64)
        except TypeError as error:
            raise InputError(f"policy {self.name} cannot be asked (queue, now): {error}") from None
        if scores.shape != (len(queue),):
            raise InputError(
                f"policy {self.name} returned scores of shape {scores.shape}; "
                f"it must return one per request, shape ({len(queue)},)"
            )
        if np.isnan(scores).any():
            raise InputError(f"policy {self.name} returned a score that is not a number")
        return scores


@dataclass(frozen=True)
class OraclePolicy(Policy):
    """A policy whose predictions are, by definition, the true output lengths."""
