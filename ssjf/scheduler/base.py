"""What a policy is: a score per request, lowest first, from what is known when it decides."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ssjf.errors import InputError
from ssjf.request import FloatArray, IntArray


@dataclass(frozen=True)
class Queue:
    """What a policy sees: columns of shape (n,) over the requests it orders.

    True output lengths are not here. ``predicted_tokens`` is the predictor's word (tokens, or
    anything that grows with them); ``generated_tokens`` is what each has produced so far.
    ``in_flight``: how many requests were there, waiting or running, when each arrived, and
    ``in_flight_tokens``, the sum of their predictions; told to a score ``AtArrival`` alone.
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


MOST_PARAMETERS = 8


@dataclass(frozen=True)
class Compiled:
    """A score of one request in plain numbers, which the simulator compiles.

    function: of four numbers (see the subclasses) and the parameters, made of ``math`` and
        arithmetic alone. parameters: up to eight numbers.
    """

    function: Callable[..., float]
    parameters: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.parameters) > MOST_PARAMETERS or not np.isfinite(self.parameters).all():
            raise InputError(f"a compiled score takes up to {MOST_PARAMETERS} finite parameters, "
                             f"not {self.parameters}")  # fmt: skip


@dataclass(frozen=True)
class Moving(Compiled):
    """One that may move as a request waits.

    function: ``(arrived_at, predicted_tokens, generated_tokens, now, *parameters) -> float``.
    """

    def __call__(self, queue: Queue, now: float) -> FloatArray:
        columns = (queue.arrived_at, queue.predicted_tokens, queue.generated_tokens)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return np.array([self.function(*row, now, *self.parameters) for row in rows])


@dataclass(frozen=True)
class AtArrival(Compiled):
    """A key that a request is given when it arrives, from what is there then; it never changes.

    function: ``(arrived_at, predicted_tokens, in_flight, in_flight_tokens, *parameters) -> float``,
        the last two as of ``Queue``. A simulated machine's requests arrive when its scheduler sees
        them, as a step ends; those of a cluster when they are routed.
    """

    def __call__(self, queue: Queue, now: float) -> FloatArray:
        if queue.in_flight is None or queue.in_flight_tokens is None:
            raise InputError("a key made at arrival needs the requests in flight, which only who "
                             "serves knows")  # fmt: skip
        columns = (queue.arrived_at, queue.predicted_tokens, queue.in_flight,
                   queue.in_flight_tokens)  # fmt: skip
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return np.array([self.function(*row, *self.parameters) for row in rows])


Bound = Callable[[Queue], FloatArray]


@dataclass(frozen=True)
class Policy:
    """An ordering of waiting requests.

    Parameters
    ----------
    name: how tables and figures call it.
    score: ``(queue, now_seconds) -> (n,)``; the lowest is served first, ties by arrival.
    in_time: how a request's score moves while it waits. ``constant`` (a static key, computed
        once: full speed, and a vLLM ``priority``), ``linear``, or ``any`` (asked anew at every
        decision: right for every function, and slowest).
    promote_after: ``(queue) -> (n,)`` seconds of waiting after which a request goes before all
        that are not promoted, by arrival; only with ``in_time="constant"``.
    uses_prediction: False for an order that reads no predicted length.
    preempts: may a waiting request take the place of a running one whose score is strictly
        higher? Equal scores never do. (In the simulator; vLLM preempts only when short of KV.)
    victims: the score of a request that runs, where it is not that of one that waits: the highest
        gives way first. Beside a ``Moving`` score of the same parameters.
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
            raise InputError(f"policy {self.name}: victims needs a Moving score with the same "
                             "parameters")  # fmt: skip

    @property
    def made_at_arrival(self) -> bool:
        """Does its key depend on what is in flight when a request arrives?"""
        return isinstance(self.score, AtArrival)

    @property
    def is_static(self) -> bool:
        """Is it a key that never changes, which a stock vLLM takes as ``priority``?"""
        return self.in_time == "constant" and self.promote_after is None and not self.preempts

    def scores(self, queue: Queue, now: float) -> FloatArray:
        """The scores, checked: one finite number per request."""
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
