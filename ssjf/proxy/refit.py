"""Refits the trained proxy to its traffic: on a server (``Refit``) or from a log (``train``).

Only hashed n-grams and plain counts of prompts are kept, no text.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, Field

from ssjf.config import STRICT
from ssjf.proxy import io
from ssjf.proxy.base import (
    LONGEST_TOKENS,
    NO_RESIDUALS,
    Arrays,
    LogProxy,
    Proxy,
    TrainingRows,
    fit_residuals,
)
from ssjf.proxy.light import features
from ssjf.proxy.mixture import BUCKETS, Finished, Mixture, Reading, Ridge
from ssjf.request import FloatArray

MOST_ROWS, MOST_IDS = 4000, 2_000_000  # remembered requests, and their n-grams in total
HALF_LIFE = 2000.0  # requests after which a finished one weighs half
FIRST, GROWTH, MOST_BETWEEN = 40, 1.15, 200  # finished requests between refits
LONGEST = np.log(LONGEST_TOKENS)
PREFIX = "learnt."  # of learnt arrays in a proxy's folder
BANDS = 5  # of predicted length, each with its own residuals
RECENT, OFTEN = 500, 10  # requests behind the mixture, and requests between its updates


class Refit:
    """Learns the lengths of one LLM's answers.

    One thread may predict while another does everything else: models are replaced as a whole.
    """

    def __init__(self, half_life: float = HALF_LIFE) -> None:
        self._half_life = half_life
        self._rows: deque[Finished] = deque()
        self._ids = self._count = 0
        self._next = FIRST
        self._ridge: Ridge | None = None
        self._mixture: Mixture | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def predict(self, prompt: str, shipped_tokens: float) -> tuple[float, Reading]:
        """Predict tokens; return them and the reading to pass to ``learn`` when the answer ends."""
        ids = features.grams(prompt, BUCKETS).astype(np.int32)
        counts = features.counts(prompt).astype(np.float32)
        reading = self._refitted(Reading(ids, counts, float(np.log(shipped_tokens)), np.nan))
        if self._mixture is None:
            return shipped_tokens, reading
        return float(np.exp(np.clip(self._mixture.length(reading), 0, LONGEST))), reading

    def _refitted(self, reading: Reading) -> Reading:
        ridge = self._ridge
        return reading if ridge is None else reading._replace(refitted=ridge.length(reading))

    def learn(self, reading: Reading, output_tokens: float, cut_off: bool = False) -> None:
        """Learn from a finished request: the scale of lengths soon, the rest at the next refit."""
        if not 1 <= output_tokens <= LONGEST_TOKENS:
            raise ValueError(f"{output_tokens} tokens are no length")
        self._remember(Finished(reading, float(np.log(output_tokens)), bool(cut_off)))
        if self._count < FIRST or self._count % OFTEN == 0:
            self._mix()

    def _remember(self, row: Finished) -> None:
        self._rows.append(row)
        self._ids += len(row.reading.ids)
        self._count += 1
        while len(self._rows) > MOST_ROWS or (self._ids > MOST_IDS and len(self._rows) > FIRST):
            self._ids -= len(self._rows.popleft().reading.ids)

    def _mix(self) -> None:
        recent = [*islice(self._rows, max(0, len(self._rows) - RECENT), None)]
        targets = [self._at_least(row) if row.cut_off else row.length for row in recent]
        self._mixture = Mixture.of(recent, np.array(targets))

    def _at_least(self, row: Finished) -> float:
        """The length now predicted for an answer that was cut off, or its own if larger."""
        mixture, reading = self._mixture, self._refitted(row.reading)
        return max(row.length, mixture.length(reading) if mixture else reading.shipped)

    @property
    def due(self) -> bool:
        """Have enough requests finished since the last refit?"""
        return self._count >= self._next

    def refit(self) -> None:
        """Fit the ridge to all remembered requests; takes up to about a second."""
        self._next = min(int(self._count * GROWTH) + 1, self._count + MOST_BETWEEN)
        self._ridge = Ridge.fit(self._rows, self._half_life)

    def arrays(self) -> Arrays:
        """Everything that is remembered."""
        readings = [row.reading for row in self._rows]
        return {
            "ids": np.concatenate([np.zeros(0, np.int32), *(each.ids for each in readings)]),
            "sizes": np.array([len(each.ids) for each in readings]),
            "counts": np.array([each.counts for each in readings]),
            "logs": np.array([[*row.reading[2:], row.length] for row in self._rows]),
            "cut_off": np.array([row.cut_off for row in self._rows]),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """The inverse of ``arrays``, refitted; raises an error for other arrays."""
        ids, sizes, counts = arrays["ids"], arrays["sizes"], arrays["counts"]
        fits = sizes.sum() == len(ids) and counts.shape == (len(sizes), features.COUNTS)
        if not fits or ((ids < 0) | (ids >= BUCKETS)).any():
            raise ValueError("its n-grams and counts do not fit together")
        learner = cls()
        parts = np.split(ids, np.cumsum(sizes)[:-1])
        rows = zip(parts, counts, arrays["logs"], arrays["cut_off"], strict=True)
        for part, count, logs, cut_off in rows:
            shipped, refitted, length = logs.tolist()
            reading = Reading(part, count, shipped, refitted)
            learner._remember(Finished(reading, length, bool(cut_off)))
        if learner.due:
            learner.refit()
        learner._mix()
        return learner


def prequential(
    prompts: Sequence[str], output_tokens: ArrayLike, proxy: Proxy, lag: int = 0,
    cut_off: ArrayLike | None = None, half_life: float = HALF_LIFE,
) -> FloatArray:  # fmt: skip
    """Predict tokens, shape (n,), each with a proxy refitted to requests that finished before.

    Requests finish in the order given, each after ``lag`` more have been predicted. cut_off: mask
    of answers that ended at their limit.
    """
    lengths = np.asarray(output_tokens, np.float64)
    cut = np.zeros(len(lengths), bool) if cut_off is None else np.asarray(cut_off, bool)
    order = np.arange(len(lengths))
    return _replayed(prompts, lengths, cut, proxy, order, order - lag, half_life)


def as_served(
    prompts: Sequence[str], output_tokens: ArrayLike, proxy: Proxy, arrived_at: FloatArray,
    finished_at: FloatArray,
) -> FloatArray:  # fmt: skip
    """As ``prequential``, but with arrival and finish times: each request is predicted at its
    arrival, from requests that finished before."""
    lengths, order = np.asarray(output_tokens, np.float64), np.argsort(finished_at, kind="stable")
    known, cut = np.searchsorted(finished_at[order], arrived_at), np.zeros(len(lengths), bool)
    return _replayed(prompts, lengths, cut, proxy, order, known, HALF_LIFE)


def _replayed(prompts, lengths, cut, proxy, order, known, half_life) -> FloatArray:
    """Predict request i after the first ``known[i]`` of ``order`` have finished."""
    learner, predicted = Refit(half_life), np.zeros(len(lengths))
    readings: list[Reading] = []
    learnt = 0
    for i, shipped in enumerate(proxy.predict(prompts).tokens):
        for done in order[learnt : max(known[i], 0)]:
            _learn(learner, readings[done], lengths[done], cut[done])
        learnt = max(known[i], 0)
        predicted[i], reading = learner.predict(prompts[i], float(shipped))
        readings.append(reading)
    return predicted


def _learn(learner: Refit, reading: Reading, tokens: float, cut_off: bool) -> None:
    learner.learn(reading, tokens, cut_off)
    if learner.due:
        learner.refit()


@dataclass(frozen=True)
class RefitProxy(LogProxy):
    """The shipped proxy with a learner trained on a log; ``learnt`` is the learner's ``arrays``."""

    learnt: Arrays
    learner: Refit
    shipped: Proxy

    @classmethod
    def of(cls, learnt: Arrays, residuals: Arrays) -> Self:
        """Restore the learner from ``learnt``, with the currently shipped proxy."""
        return cls(
            **residuals, learnt=learnt, learner=Refit.from_arrays(learnt),
            shipped=io.load(io.BUILTIN),
        )  # fmt: skip

    def predicted_logs(self, prompts: Sequence[str]) -> FloatArray:
        tokens = self.shipped.predict(prompts).tokens.tolist()
        pairs = zip(prompts, tokens, strict=True)
        return np.log([self.learner.predict(prompt, shipped)[0] for prompt, shipped in pairs])

    def arrays(self) -> Arrays:
        return super().arrays() | {f"{PREFIX}{name}": a for name, a in self.learnt.items()}

    def metadata(self) -> dict[str, Any]:
        """For its card: the shipped proxy that it belongs to."""
        return {"shipped": _shipped()}

    @classmethod
    def from_arrays(cls, arrays: Arrays, card: dict[str, Any]) -> Self:
        if card["shipped"] != _shipped():
            raise ValueError("it goes with another version's shipped proxy; train it again")
        learnt = {name: a for name, a in arrays.items() if name.startswith(PREFIX)}
        own = {name: a for name, a in arrays.items() if name not in learnt}
        return cls.of({name.removeprefix(PREFIX): a for name, a in learnt.items()}, own)


def _shipped() -> str:
    return io.card(io.BUILTIN)["sha256"]


class RefitConfig(BaseModel):
    """The number of training rows to learn, the last ones."""

    model_config = STRICT

    rows: int = Field(MOST_ROWS, ge=1, le=MOST_ROWS)


def train(rows: TrainingRows, config: RefitConfig, keep: Path | None = None) -> RefitProxy:
    """Learn the last training rows in order, as a server would.

    This takes seconds, so there are no checkpoints.
    """
    at = rows.known(rows.train)[-config.rows :]
    prompts, lengths = rows.prompts_of(at), np.exp(rows.targets[at, 0]).tolist()
    cut = np.zeros(len(at)) if rows.cut_off is None else rows.cut_off[at]
    shipped = io.load(io.BUILTIN).predict(prompts).tokens.tolist()
    learner = Refit()
    for prompt, tokens, cut_off, predicted in zip(prompts, lengths, cut, shipped, strict=True):
        _learn(learner, learner.predict(prompt, predicted)[1], tokens, cut_off)
    proxy = RefitProxy.of(learner.arrays(), vars(NO_RESIDUALS))
    held = rows.known(rows.validation)
    logs = proxy.predicted_logs(rows.prompts_of(held))
    return replace(proxy, **vars(fit_residuals(logs, rows.draws[held], BANDS)))
