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
    ``fcfs_wait``: seconds each would have waited first come, first served, where the policy
    ``uses_fcfs_wait``; only the simulator tells.
    """

    arrived_at: FloatArray
    prompt_tokens: IntArray
    predicted_tokens: FloatArray
    generated_tokens: IntArray
    fcfs_wait: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.arrived_at)


Score = Callable[[Queue, float], FloatArray]


MOST_PARAMETERS = 6


@dataclass(frozen=True)
class Moving:
    """A score of one request in plain numbers, which may move as it waits; it is compiled.

    function: ``(arrived_at, predicted_tokens, generated_tokens, now, *parameters) -> float``, of
        ``math`` and arithmetic alone. parameters: up to six numbers.
    """

    function: Callable[..., float]
    parameters: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.parameters) > MOST_PARAMETERS or not np.isfinite(self.parameters).all():
            raise InputError(f"a moving score takes up to {MOST_PARAMETERS} finite parameters, "
                             f"not {self.parameters}")  # fmt: skip

    def __call__(self, queue: Queue, now: float) -> FloatArray:
        columns = (queue.arrived_at, queue.predicted_tokens, queue.generated_tokens)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return np.array([self.function(*row, now, *self.parameters) for row in rows])


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
    uses_fcfs_wait: does it read ``queue.fcfs_wait``? Only with ``in_time="constant"``.
    """

    name: str
    score: Score
    in_time: Literal["constant", "linear", "any"] = "any"
    promote_after: Bound | None = None
    uses_prediction: bool = True
    preempts: bool = False
    uses_fcfs_wait: bool = False

    def __post_init__(self) -> None:
        if self.in_time not in ("constant", "linear", "any"):
            raise InputError(
                f"policy {self.name}: in_time is {self.in_time!r}; "
                "it must be 'constant', 'linear' or 'any'"
            )
        for what, used in (
            ("promote_after", self.promote_after is not None),
            ("uses_fcfs_wait", self.uses_fcfs_wait),
        ):
            if used and self.in_time != "constant":
                raise InputError(f"policy {self.name}: {what} needs in_time 'constant'")

    @property
    def is_static(self) -> bool:
        """Is it a key that never changes, which a stock vLLM takes as ``priority`` if it is told
        what the key is of?"""
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
