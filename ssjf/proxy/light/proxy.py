"""The light proxy: hashed n-grams and plain counts into linear scores, then boosted trees.

It needs no GPU, half a millisecond for 64 tokens, and no download: the one that is shipped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssjf.proxy.base import Prediction
from ssjf.proxy.conformal import LEVELS, ResidualQuantiles, tokens
from ssjf.proxy.light import features
from ssjf.proxy.light.trees import Trees
from ssjf.request import FloatArray

CHUNK = 1024
_OWN = ("idf", "linear", "offset", "projection", "scale", "edges", "residuals")


@dataclass(frozen=True)
class LightProxy:
    """A trained light proxy.

    idf: shape (b,), the weight of each of b hash buckets.
    linear: shape (b, s), s linear scores of the tf-idf vector; ``offset`` (s,) is added.
    projection: shape (b, d), int8; times ``scale`` (d,), a projection of the same vector.
    trees: from [scores, counts, projection] to the logarithm of the length.
    base: what the trees' sum is added to.
    edges: shape (k - 1,), predicted logarithms that part k bands; ``residuals`` (k, levels)
        are the quantiles, in each band, of true minus predicted logarithm.
    """

    idf: np.ndarray
    linear: np.ndarray
    offset: np.ndarray
    projection: np.ndarray
    scale: np.ndarray
    trees: Trees
    base: float
    edges: np.ndarray
    residuals: np.ndarray

    def predict(self, prompts: Sequence[str], llms: Sequence[str] | None = None) -> Prediction:
        """Lengths in tokens: the median-like exp of the predicted logarithm, and quantiles."""
        parts = [self._logs(prompts[i : i + CHUNK]) for i in range(0, len(prompts), CHUNK)]
        logs = np.concatenate(parts) if parts else np.zeros(0)
        quantiles = ResidualQuantiles(self.edges, self.residuals).quantiles(logs)
        return Prediction(tokens(logs), quantiles, LEVELS)

    def _logs(self, prompts: Sequence[str]) -> FloatArray:
        return self.base + self.trees.sums(self.columns(prompts))

    def columns(self, prompts: Sequence[str]) -> FloatArray:
        """What the trees see, shape (n, s + counts + d)."""
        rows = [self._row(prompt) for prompt in prompts]
        return np.stack(rows).astype(np.float32)

    def _row(self, prompt: str) -> FloatArray:
        ids = features.grams(prompt, len(self.idf))
        weights = self.idf[ids].astype(np.float64)
        weights /= max(float(np.sqrt(weights @ weights)), 1e-9)
        scores = weights @ self.linear[ids].astype(np.float64) + self.offset
        projected = weights @ self.projection[ids].astype(np.float64) * self.scale
        return np.concatenate([scores, features.counts(prompt), projected])

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything that is stored, by name."""
        return {name: getattr(self, name) for name in _OWN} | {
            "base": np.array([self.base]), **self.trees.arrays(),
        }  # fmt: skip

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], config: dict[str, Any]) -> "LightProxy":
        """The inverse of ``arrays``; ValueError for arrays that do not fit together."""
        own = {name: arrays[name] for name in _OWN}
        _check({**own, "base": arrays["base"]}, len(arrays["idf"]))
        proxy = cls(**own, base=float(arrays["base"][0]), trees=Trees.from_arrays(arrays))
        seen = len(proxy.offset) + features.COUNTS + len(proxy.scale)
        if proxy.trees.feature.max(initial=-1) >= seen:
            raise ValueError(f"the trees read more than the {seen} columns there are")
        return proxy


def _check(own: dict[str, np.ndarray], buckets: int) -> None:
    if not buckets or buckets & (buckets - 1):
        raise ValueError(f"{buckets} buckets; it must be a power of two")
    scores, dimensions, edges = (len(own[name]) for name in ("offset", "scale", "edges"))
    shapes = {
        "idf": (buckets,), "linear": (buckets, scores), "offset": (scores,),
        "projection": (buckets, dimensions), "scale": (dimensions,), "edges": (edges,),
        "residuals": (edges + 1, len(LEVELS)), "base": (1,),
    }  # fmt: skip
    for name, shape in shapes.items():
        if own[name].shape != shape:
            raise ValueError(f"{name} is of shape {own[name].shape} instead of {shape}")
        if not np.isfinite(own[name]).all():
            raise ValueError(f"{name} holds what is not a finite number")
