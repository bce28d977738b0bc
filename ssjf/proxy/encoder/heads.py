"""Training options of encoders, and heads, which decode an encoder's outputs into a length.

A head is a number of outputs, a decoder, and a loss (see ``network``). The 3- and 5-class, ordinal
and L1 / MSE heads are those of the SSJF authors' code (its names: cls, multi-cls, multi-cls-l1,
multi-cls-mse, reg-l1, reg-mse); the others are from later work or our own.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, Field, model_validator

from ssjf.config import STRICT
from ssjf.proxy.base import LEVELS, Part
from ssjf.request import FloatArray


@dataclass(frozen=True)
class Scale(Part):
    """Statistics of the training lengths that heads use for decoding.

    log, tokens: mean and standard deviation of logarithms, and of lengths. edges: shape (k - 1,),
    tokens, between k classes; a length at an edge belongs to the class above. class_means: shape
    (k,), tokens. rank_scores, rank_logs: shape (r,), a rising map from a ranker's score to the
    logarithm of the length.
    """

    log: np.ndarray
    tokens: np.ndarray
    edges: np.ndarray
    class_means: np.ndarray
    rank_scores: np.ndarray
    rank_logs: np.ndarray


def scale_of(draws: FloatArray, percentiles: FloatArray) -> Scale:
    """Compute the scale from logarithms of training lengths, shape (n, m)."""
    logs = draws[~np.isnan(draws)]
    lengths = np.rint(np.exp(logs))
    edges = np.unique(np.percentile(lengths, percentiles))
    edges = edges[edges > lengths.min()]  # a class below every length would be empty
    ids = np.searchsorted(edges, lengths, side="right")
    counts = np.bincount(ids, minlength=len(edges) + 1)
    means = np.bincount(ids, lengths, len(edges) + 1) / np.maximum(counts, 1)
    log = np.array([logs.mean(), max(logs.std(), 1e-6)])
    return Scale(
        log, np.array([lengths.mean(), max(lengths.std(), 1e-6)]), edges, means,
        np.array([-1.0, 1.0]), log[0] + log[1] * np.array([-1.0, 1.0]),
    )  # fmt: skip


class Decoded(NamedTuple):
    """Predicted logarithms, shape (n,), and logarithms of predicted quantiles, (n, levels), for
    heads that predict them."""

    logs: FloatArray
    levels: FloatArray | None = None


@dataclass(frozen=True)
class Head:
    """A head: ``decode(outputs, scale, how)``, and ``count`` outputs (None: one per class).

    percentiles: of the training lengths, the edges between classes.
    """

    decode: Callable[[FloatArray, Scale, str], Decoded]
    count: int | None = 1
    percentiles: tuple[float, ...] = (25.0, 50.0, 75.0, 99.0)

    def outputs(self, scale: Scale) -> int:
        """The number of outputs per prompt."""
        return self.count or len(scale.class_means)


def _tokens(out: FloatArray, scale: Scale, how: str) -> Decoded:
    return Decoded(np.log(np.maximum(out[:, 0] * scale.tokens[1] + scale.tokens[0], 1.0)))


def _log(out: FloatArray, scale: Scale, how: str) -> Decoded:
    return Decoded(out[:, 0] * scale.log[1] + scale.log[0])


def _classes(out: FloatArray, scale: Scale, how: str) -> Decoded:
    if how == "argmax":
        return Decoded(np.log(scale.class_means[out.argmax(axis=1)]))
    weights = np.exp(out - out.max(axis=1, keepdims=True))
    return Decoded(np.log(weights @ scale.class_means / weights.sum(axis=1)))


def _ordinal(out: FloatArray, scale: Scale, how: str) -> Decoded:
    place = np.clip(out[:, 0], 0, len(scale.class_means) - 1)
    place = np.rint(place) if how == "argmax" else place
    means = np.log(scale.class_means)
    return Decoded(np.interp(place, np.arange(len(means)), means))


def _rank(out: FloatArray, scale: Scale, how: str) -> Decoded:
    """Extrapolate the map with its first and last slopes, so that no two scores tie."""
    score, xs, ys = out[:, 0], scale.rank_scores, scale.rank_logs
    below = (ys[1] - ys[0]) / (xs[1] - xs[0]) * np.minimum(score - xs[0], 0)
    above = (ys[-1] - ys[-2]) / (xs[-1] - xs[-2]) * np.maximum(score - xs[-1], 0)
    return Decoded(np.interp(score, xs, ys) + below + above)


def _quantiles(out: FloatArray, scale: Scale, how: str) -> Decoded:
    levels = np.sort(out[:, : len(LEVELS)], axis=1) * scale.log[1] + scale.log[0]
    return Decoded(np.log(expected(np.exp(levels))), levels)


def expected(quantiles: FloatArray) -> FloatArray:
    """The mean of a distribution given by its quantiles at ``LEVELS``, shape (n, levels) -> (n,).

    The quantile function is taken as linear between levels and as constant beyond them.
    """
    at = np.array(LEVELS)
    inner = (quantiles[:, 1:] + quantiles[:, :-1]) / 2 @ np.diff(at)
    return inner + quantiles[:, 0] * at[0] + quantiles[:, -1] * (1 - at[-1])


HEADS = {
    "l1": Head(_tokens),
    "mse": Head(_tokens),
    "log-mse": Head(_log),
    # The authors' "binary" head has the three classes below p50, to p99, and above.
    "3-class": Head(_classes, None, (50.0, 99.0)),
    "5-class": Head(_classes, None),
    "ordinal-l1": Head(_ordinal),
    "ordinal-mse": Head(_ordinal),
    "pairwise": Head(_rank),
    "listmle": Head(_rank),
    "quantiles": Head(_quantiles, len(LEVELS)),
}
RANKERS = ("pairwise", "listmle")


def ranked(scale: Scale, scores: FloatArray, logs: FloatArray) -> Scale:
    """Add a ranker's map, from quantiles of validation scores to quantiles of lengths."""
    at = np.linspace(0, 1, 101)
    xs, first = np.unique(np.quantile(scores, at), return_index=True)
    # Of nearly equal points only the first is kept: the slope between them could be infinite.
    apart = np.flatnonzero(np.diff(xs, prepend=-np.inf) > 1e-6 * np.ptp(xs))
    xs, ys = xs[apart], np.quantile(logs, at)[first[apart]]
    if len(xs) < 2:  # equal scores order nothing
        return scale
    ys = np.maximum.accumulate(ys + 1e-6 * np.arange(len(ys)))  # rises even where lengths tie
    return replace(scale, rank_scores=xs, rank_logs=ys)


Rate = Annotated[float, Field(ge=1e-9, le=1)]
Layers = Annotated[
    tuple[Annotated[int, Field(ge=1, le=8192)], ...], Field(strict=False, max_length=8)
]


class EncoderConfig(BaseModel):
    """Options of an encoder with a head.

    backbone: ``minilm``, ``bert-base-uncased``, ``bert-tiny``, a hub id or a folder.
    cut: which tokens of a longer prompt are read: the first, the last, or a quarter of them from
        the front and the rest from the end (128 + 384 of 512 in the SSJF authors' code).
    decode: prediction of class heads: the mean length of the likeliest class (the paper's; has
        ties), or the expected length over all classes.
    tuned_epochs: number of epochs after which the encoder is frozen and only the head learns; 0
        never tunes the encoder, ``epochs`` always does.
    tune_embeddings: tune the token embeddings too? They are half of MiniLM's weights, of which a
        small data set uses few.
    patience: epochs without a better validation tau after which training stops.
    precision: ``bfloat16`` applies if the device computes in it natively, otherwise float32.
    """

    model_config = STRICT

    backbone: str = Field("minilm", min_length=1)
    head: Literal[tuple(HEADS)] = "quantiles"  # type: ignore[valid-type]
    decode: Literal["argmax", "expected"] = "argmax"
    pooling: Literal["cls", "mean"] = "mean"
    hidden: Layers = (128, 128)
    longest_tokens: int = Field(512, ge=8, le=8192)
    cut: Literal["head", "tail", "head-tail"] = "head-tail"
    epochs: int = Field(3, ge=1, le=1000)
    tuned_epochs: int = Field(3, ge=0, le=1000)
    tune_embeddings: bool = False
    batch: int = Field(64, ge=2, le=4096)
    learning_rate: Rate = 1e-4
    head_learning_rate: Rate = 1e-3
    weight_decay: float = Field(0.01, ge=0, le=1)
    warmup: float = Field(0.06, ge=0, le=1)
    dropout: float = Field(0.1, ge=0, le=0.9)
    encoder_dropout: float = Field(0.0, ge=0, le=0.9)
    also_weight: float = Field(0.5, ge=0, le=100)
    patience: int = Field(3, ge=1, le=1000)
    bands: int = Field(5, ge=1, le=100)
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    device: Literal["cpu", "cuda"] = "cpu"
    checkpoint_steps: int = Field(200, ge=1, le=10**6)
    threads: int = Field(1, ge=1, le=256)
    seed: int = Field(0, ge=0, le=2**31 - 1)

    @model_validator(mode="after")
    def _check(self) -> Any:
        if self.tuned_epochs > self.epochs:
            raise ValueError(
                f"tuned_epochs is {self.tuned_epochs}; it must be at most epochs, {self.epochs}"
            )
        return self
