"""Heads of an encoder: how the outputs of its last layer become a length.

A head is a number of outputs, a loss (see ``losses``) and a way to decode. The 3- and 5-class,
ordinal and L1 / MSE heads are those of the SSJF authors' code (its names: cls, multi-cls,
multi-cls-l1, multi-cls-mse, reg-l1, reg-mse); the others are of later work or our own.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np

from ssjf.proxy.conformal import LEVELS
from ssjf.request import FloatArray


@dataclass(frozen=True)
class Scale:
    """Statistics of the training lengths that heads decode by.

    log: mean and standard deviation of logarithms; tokens: of lengths. edges: shape (k - 1,),
    tokens, part k classes; a length at an edge belongs to the class above. class_means: shape
    (k,), tokens; class_shares: (k,). rank_scores, rank_logs: shape (r,), a rising map from a
    ranker's score to a logarithm of length.
    """

    log: np.ndarray
    tokens: np.ndarray
    edges: np.ndarray
    class_means: np.ndarray
    class_shares: np.ndarray
    rank_scores: np.ndarray
    rank_logs: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it, by name."""
        return {f"scale.{field.name}": getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "Scale":
        """The inverse of ``arrays``."""
        return cls(*(arrays[f"scale.{field.name}"] for field in fields(cls)))


def scale_of(draws: FloatArray, percentiles: FloatArray) -> Scale:
    """The scale of logarithms of training lengths, shape (n, m)."""
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
        counts / len(logs), np.array([-1.0, 1.0]), log[0] + log[1] * np.array([-1.0, 1.0]),
    )  # fmt: skip


@dataclass(frozen=True)
class Decoded:
    """``logs``: predicted logarithms, shape (n,). ``levels``: logarithms of the predicted
    quantiles, (n, levels), of heads that predict them."""

    logs: FloatArray
    levels: FloatArray | None = None


@dataclass(frozen=True)
class Head:
    """``outputs(scale)`` numbers per prompt; ``decode(outputs, scale, how)``."""

    outputs: Callable[[Scale], int]
    decode: Callable[[FloatArray, Scale, str], Decoded]
    percentiles: tuple[float, ...] | None = None


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
    return Decoded(
        np.interp(place, np.arange(len(scale.class_means)), np.log(scale.class_means))
    )  # fmt: skip


def _rank(out: FloatArray, scale: Scale, how: str) -> Decoded:
    """Beyond the map's ends its first and last slopes go on, so that no two scores tie."""
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


def _one(scale: Scale) -> int:
    return 1


def _per_class(scale: Scale) -> int:
    return len(scale.class_means)


HEADS = {
    "l1": Head(_one, _tokens),
    "mse": Head(_one, _tokens),
    "log-mse": Head(_one, _log),
    # The authors' "binary" head has the three classes below p50, to p99, and above.
    "3-class": Head(_per_class, _classes, (50.0, 99.0)),
    "5-class": Head(_per_class, _classes),
    "ordinal-l1": Head(_one, _ordinal),
    "ordinal-mse": Head(_one, _ordinal),
    "pairwise": Head(_one, _rank),
    "listmle": Head(_one, _rank),
    "quantiles": Head(lambda scale: len(LEVELS), _quantiles),
}
RANKERS = ("pairwise", "listmle")


def ranked(scale: Scale, scores: FloatArray, logs: FloatArray) -> Scale:
    """The scale with a ranker's map: quantiles of validation scores to those of lengths."""
    at = np.linspace(0, 1, 101)
    xs, first = np.unique(np.quantile(scores, at), return_index=True)
    # Of points that nearly meet the first is kept: a slope between them could be infinite.
    apart = np.flatnonzero(np.diff(xs, prepend=-np.inf) > 1e-6 * np.ptp(xs))
    xs, ys = xs[apart], np.quantile(logs, at)[first[apart]]
    if len(xs) < 2:  # all scores alike order nothing
        return scale
    ys = np.maximum.accumulate(ys + 1e-6 * np.arange(len(ys)))  # rises even where lengths tie
    return replace(scale, rank_scores=xs, rank_logs=ys)
