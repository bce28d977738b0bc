"""Preemptive orders by predicted remaining time: ALISE's priority queues, and SRPT.

ALISE (arXiv 2410.23537) keeps preemptive priority queues on the estimated execution time; its
text could not be had. Ours, and marked as such: where the levels lie, that ageing counts from
arrival and moves a request up one level at a time, and how an outlived prediction is revised.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import Field

from ssjf.config import checked
from ssjf.errors import InputError
from ssjf.request import FloatArray, IntArray
from ssjf.scheduler.base import OraclePolicy, Policy, Queue

DEFAULT_PROMOTION_SECONDS = 10.0
DEFAULT_BOUNDARIES = tuple(0.25 * 2.0**k for k in range(7))
"""Seconds between the eight levels: the lowest ends at 0.25 s, the highest begins at 16 s."""


Seconds = Annotated[float, Field(ge=0, lt=1e4)]


@checked
class TimeModel:
    """ALISE's time of s prompt and n output tokens, s * T0 + n * (alpha * s + beta), in seconds.

    With s fixed at the prompt the decode term leaves out that each token reads one more than the
    token before, alpha * n * (n - 1) / 2 in all; ``context_growth`` puts it in.
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
        """Seconds until the last of ``total_tokens``; columns of shape (n,).

        Prefill is counted until the first token is there, and is not counted again for a
        request that will be recomputed.
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
"""Counts tokens: a second for each."""
DEFAULT_TIME = TimeModel(5e-5, 4e-8, 8e-3)
"""Where no machine is known: the round numbers of the profile ``illustrative-gpu``."""


def reestimated(predicted_tokens: FloatArray, generated_tokens: IntArray) -> FloatArray:
    """The length that is believed in now, shape (n,): at least one token, always above what is
    generated.

    A prediction doubles whenever it is outlived (our choice: the paper's is not known), so that
    no request stays "almost done" and ahead of all others for as long as it runs.
    """
    total = np.maximum(predicted_tokens, 1.0)
    while (outlived := total <= generated_tokens).any():
        total = np.where(outlived, 2 * total, total)
    return total


@checked
class Remaining:
    """A score: predicted remaining seconds or, with ``boundaries``, the level they fall into.

    Level k lies between boundaries k - 1 and k; 0 is served first, and within a level the first
    that came. Every ``promotion_seconds`` since its arrival a request moves one level up, so in
    level 0 it is overtaken by nobody younger. Infinite: no ageing.

    time: None takes the coefficients of the machine that serves (``on``).
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

    def on(self, machine: TimeModel) -> "Remaining":
        """The same with the coefficients of a machine, where it has none of its own."""
        return self if self.time else replace(self, time=machine)

    def __call__(self, queue: Queue, now: float) -> FloatArray:
        predicted = queue.predicted_tokens
        check_lengths(predicted)
        total = reestimated(predicted, queue.generated_tokens)
        seconds = (self.time or DEFAULT_TIME).remaining_seconds(
            queue.prompt_tokens, total, queue.generated_tokens, self.context_growth
        )
        if not self.boundaries:
            return seconds
        level = np.searchsorted(self.boundaries, seconds, side="right")
        waited = np.maximum(now - queue.arrived_at, 0.0)
        return np.maximum(level - np.floor(waited / self.promotion_seconds), 0.0)


def check_lengths(predicted_tokens: FloatArray) -> None:
    """Times come from lengths, not from classes or ranks."""
    if not (np.isfinite(predicted_tokens) & (predicted_tokens > 0)).all():
        raise InputError(
            "predicted lengths are turned into times: they must be finite tokens above 0 "
            "(the predictor class-mean:NAME turns a column of class ids into tokens)"
        )


def alise(
    promotion_seconds: float = DEFAULT_PROMOTION_SECONDS,
    boundaries: Sequence[float] = DEFAULT_BOUNDARIES,
    context_growth: bool = False,
    time: TimeModel | None = None,
) -> Policy:
    """ALISE's order: preemptive multi-level queues on predicted remaining time, with ageing."""
    score = Remaining(time, context_growth, tuple(boundaries), promotion_seconds)
    name = "alise-context" if context_growth else "alise"
    return Policy(name, score, preempts=True)


def srpt() -> Policy:
    """Shortest remaining processing time (Schrage 1968), true lengths known: an oracle."""
    return OraclePolicy("srpt", Remaining(TOKENS), preempts=True)


def ssrpt() -> Policy:
    """Shortest remaining predicted tokens first, a prediction doubling when it is outlived."""
    return Policy("ssrpt", Remaining(TOKENS), preempts=True)
