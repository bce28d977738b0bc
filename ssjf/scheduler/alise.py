"""Preemptive orders by predicted remaining time: ALISE's priority queues, and SRPT.

ALISE (arXiv 2410.23537) keeps preemptive priority queues on the estimated execution time; only its
abstract was available to us. These choices are ours: the boundaries between levels, ageing that
counts from arrival and moves a request up one level at a time, and doubling an exceeded prediction.
"""

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from ssjf.config import checked
from ssjf.errors import InputError
from ssjf.request import FloatArray, IntArray
from ssjf.scheduler.base import Policy, Queue

DEFAULT_BOUNDARIES = tuple(0.25 * 2.0**k for k in range(7))
"""Seconds between the eight levels: the lowest ends at 0.25 s, the highest begins at 16 s."""

Seconds = Annotated[float, Field(ge=0, lt=1e4)]


@checked
class TimeModel:
    """ALISE's time of s prompt and n output tokens, s * T0 + n * (alpha * s + beta), in seconds.

    With s fixed at the prompt the decode term leaves out that each token reads one more than the
    token before, alpha * n * (n - 1) / 2 in all; ``context_growth`` adds it.
    """

    prefill_token_seconds: Seconds
    context_token_seconds: Seconds
    token_seconds: Seconds

    def remaining_seconds(
        self,
        prompt_tokens: IntArray,
        total_tokens: FloatArray,
        generated_tokens: IntArray,
        context_growth: bool,
    ) -> FloatArray:
        """Seconds until the last of ``total_tokens``; all columns have shape (n,).

        Prefill counts until the first token is generated, and not again for a request that was
        preempted and has to be recomputed.
        """
        left = total_tokens - generated_tokens
        if context_growth:
            read = left * (prompt_tokens + generated_tokens) + left * (left - 1) / 2
            decode = self.context_token_seconds * read + self.token_seconds * left
        else:
            decode = left * (self.context_token_seconds * prompt_tokens + self.token_seconds)
        prefill = self.prefill_token_seconds * prompt_tokens
        return np.where(generated_tokens == 0, prefill, 0.0) + decode


TOKENS = TimeModel(0.0, 0.0, 1.0)
"""One second per token: remaining time is then the number of remaining tokens."""
DEFAULT_TIME = TimeModel(5e-5, 4e-8, 8e-3)
"""Used where no machine is known: the round numbers of the profile ``illustrative-gpu``."""


def reestimated(predicted_tokens: FloatArray, generated_tokens: IntArray) -> FloatArray:
    """Current length estimates, shape (n,): at least one token and more than were generated.

    A prediction doubles whenever it is exceeded (our choice: the paper's is not known), so that
    no request stays "almost done" and ahead of all others for as long as it runs.
    """
    total = np.maximum(predicted_tokens, 1.0)
    while (exceeded := total <= generated_tokens).any():
        total = np.where(exceeded, 2 * total, total)
    return total


@checked
class Remaining:
    """A score: predicted remaining seconds or, with ``boundaries``, their level.

    Level k lies between boundaries k - 1 and k. Level 0 is served first; within a level, requests
    are served by arrival. Every ``promotion_seconds`` since its arrival (infinite: never) a request
    moves one level up, so no younger request overtakes it once it is in level 0.

    time: None takes the coefficients of the simulated machine (elsewhere ``DEFAULT_TIME``).
    """

    time: TimeModel | None = None
    context_growth: bool = False
    boundaries: tuple[float, ...] = ()
    promotion_seconds: float = Field(math.inf, gt=0)

    def __post_init__(self) -> None:
        edges = np.array([0.0, *self.boundaries])
        if not (np.isfinite(edges).all() and (np.diff(edges) > 0).all()):
            raise InputError(
                f"boundaries are {self.boundaries}; they must be finite, above 0 and rising"
            )
        if math.isfinite(self.promotion_seconds) and not self.boundaries:
            raise InputError("promotion_seconds needs boundaries: ageing moves between levels")

    def __call__(self, queue: Queue, now: float) -> FloatArray:
        check_lengths(queue.predicted_tokens)
        total = reestimated(queue.predicted_tokens, queue.generated_tokens)
        seconds = (self.time or DEFAULT_TIME).remaining_seconds(
            queue.prompt_tokens, total, queue.generated_tokens, self.context_growth
        )
        if not self.boundaries:
            return seconds
        level = np.searchsorted(self.boundaries, seconds, side="right")
        waited = np.maximum(now - queue.arrived_at, 0.0)
        return np.maximum(level - np.floor(waited / self.promotion_seconds), 0.0)


def check_lengths(predicted_tokens: FloatArray) -> None:
    """Raise InputError unless all predictions are lengths: class ids and ranks give no times."""
    if not (np.isfinite(predicted_tokens) & (predicted_tokens > 0)).all():
        raise InputError(
            "predicted lengths are turned into times: they must be finite tokens above 0 "
            "(the predictor class-mean:NAME turns a column of class ids into tokens)"
        )


def alise(
    promotion_seconds: float = 10.0,
    boundaries: Sequence[float] = DEFAULT_BOUNDARIES,
    context_growth: bool = False,
    time: TimeModel | None = None,
) -> Policy:
    """ALISE's order: preemptive multi-level queues on predicted remaining time, with ageing."""
    score = Remaining(time, context_growth, tuple(boundaries), promotion_seconds)
    return Policy("alise-context" if context_growth else "alise", score, preempts=True)
