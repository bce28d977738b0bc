"""The retrieval proxy: a prompt is answered at about the length of past prompts that are like it.

Of ALISE's predictor (arXiv 2410.23537) no more is known than this: a pre-trained encoder, a vector
data base of past prompts, similarity search, the weighted average of the retrieved lengths, and an
MLP when nothing similar is found. How each is done here is ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
from pydantic import BaseModel, Field

from ssjf.config import STRICT
from ssjf.proxy.base import (
    LEVELS,
    NO_PREDICTION,
    Arrays,
    Prediction,
    ResidualQuantiles,
)
from ssjf.proxy.encoder.heads import Layers
from ssjf.proxy.encoder.proxy import OnnxEncoder, unit
from ssjf.request import FloatArray

MEMORY = "memory.safetensors"


class RetrievalConfig(BaseModel):
    """Options of a retrieval proxy; the defaults erred least on ``alpaca-vicuna``'s validation.

    encoder: a backbone that is not tuned (``minilm``, another name of ``backbone``, a hub id or a
        folder), which reads ``longest_tokens``, or the folder of a trained encoder proxy.
    dimensions: at most so many has the space that is searched, onto which a linear map learnt
        from the training rows (in at most ``epochs``) brings the encoder's vectors.
    neighbours: how many are retrieved. temperature: a neighbour weighs exp(cosine / temperature).
    least_similarity: below this cosine of the nearest the MLP, of layers ``hidden``, answers.
    capacity: only the last so many prompts are remembered.
    """

    model_config = STRICT

    encoder: str = Field("minilm", min_length=1)
    longest_tokens: int = Field(256, ge=8, le=8192)
    dimensions: int = Field(128, ge=1, le=8192)
    epochs: int = Field(10, ge=1, le=1000)
    neighbours: int = Field(50, ge=1, le=1000)
    temperature: float = Field(0.1, ge=1e-6, le=1e6)
    least_similarity: float = Field(0.55, ge=-1, le=1)
    hidden: Layers = (128,)
    capacity: int = Field(10**6, ge=1, le=10**7)
    bands: int = Field(5, ge=1, le=100)
    seed: int = Field(0, ge=0, le=2**31 - 1)


@dataclass(frozen=True)
class VectorIndex:
    """Unit vectors, shape (n, dimensions), and logarithms of lengths, (n, draws), NaN if unknown.

    A search looks at every vector. It may be used by several threads.
    """

    vectors: np.ndarray
    logs: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray, logs: np.ndarray) -> Self:
        """Vectors rounded as they are stored, with their lengths."""
        return cls(vectors.astype(np.float16).astype(np.float32), logs.astype(np.float32))

    def __len__(self) -> int:
        return len(self.vectors)

    def search(self, vector: np.ndarray, k: int) -> tuple[FloatArray, FloatArray]:
        """Cosines (k,), falling, and logarithms of lengths (k, draws); fewer than k if need be."""
        cosines = self.vectors @ vector.astype(np.float32)
        near = np.argpartition(cosines, -k)[-k:] if k < len(self) else np.arange(len(self))
        near = near[np.argsort(-cosines[near], kind="stable")]
        return cosines[near].astype(np.float64), self.logs[near].astype(np.float64)

    def to_bytes(self) -> bytes:
        """All of it, as one safetensors file."""
        from safetensors.numpy import save

        return save({"vectors": self.vectors.astype(np.float16), "logs": self.logs})

    @classmethod
    def from_bytes(cls, data: bytes, dimensions: int) -> Self:
        """The inverse of ``to_bytes``; ValueError for bytes that are something else."""
        from safetensors.numpy import load

        arrays = load(data)
        vectors, logs = arrays["vectors"], arrays["logs"]
        if vectors.shape != (len(logs), dimensions) or logs.ndim != 2:
            raise ValueError("its vectors and lengths do not fit together")
        return cls.of(vectors, logs)


@dataclass(frozen=True)
class Mlp:
    """The fallback where nothing alike is remembered: an MLP on the prompt's vector.

    layers: of ReLU, weights of shape (inputs, outputs) and biases (outputs,), the last one's 1.
    """

    layers: list[tuple[np.ndarray, np.ndarray]]

    def logs(self, vectors: np.ndarray) -> FloatArray:
        """Predicted logarithms, shape (n,), of unit vectors (n, dimensions), each alone."""
        return np.array([self._log(vector) for vector in vectors], np.float64)

    def _log(self, vector: np.ndarray) -> float:
        *inner, (weights, bias) = self.layers
        states = scaled(vector)
        for weights_, bias_ in inner:
            states = np.maximum(states @ weights_ + bias_, 0)
        return float((states @ weights + bias)[0])

    def arrays(self) -> Arrays:
        """Its layers by name."""
        weights = {f"mlp.{i}.weights": layer[0] for i, layer in enumerate(self.layers)}
        return weights | {f"mlp.{i}.bias": layer[1] for i, layer in enumerate(self.layers)}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> "Mlp":
        """The inverse of ``arrays``."""
        count = sum(name.startswith("mlp.") for name in arrays) // 2
        layers = [(arrays[f"mlp.{i}.weights"], arrays[f"mlp.{i}.bias"]) for i in range(count)]
        return cls(layers)


class Neighbourhood(NamedTuple):
    """Lengths by the neighbours of n prompts.

    logs: shape (n,), average logarithm of the length. levels: (n, levels), logarithms of the
    quantiles of their lengths. best: (n,), the largest cosine; -inf where nothing is remembered.
    """

    logs: FloatArray
    levels: FloatArray
    best: FloatArray


@dataclass(frozen=True)
class RetrievalProxy:
    """A trained retrieval proxy; ours. It may be used by several threads.

    encoder: prompts to vectors. map: shape (hidden, dimensions), into the space that is searched.
    memory: past prompts there. fallback: predicts where no neighbour is similar enough.
    near, far: residuals of the validation lengths of either. training: numbers of its training.
    """

    config: RetrievalConfig
    encoder: OnnxEncoder
    map: np.ndarray
    memory: VectorIndex
    fallback: Mlp
    near: ResidualQuantiles
    far: ResidualQuantiles
    training: dict[str, Any] = field(default_factory=dict)

    def predict(self, prompts: Sequence[str]) -> Prediction:
        """Lengths in tokens, and quantiles: those of the neighbours' lengths, conformalised.

        Each prompt is predicted alone.
        """
        if not len(prompts):
            return NO_PREDICTION
        vectors = self.vectors(prompts)
        near, other = self.retrieved(vectors), self.fallback.logs(vectors)
        alike = near.best >= self.config.least_similarity
        logs = np.where(alike, near.logs, other)
        of_near, of_other = self.near.quantiles(near.logs, near.levels), self.far.quantiles(other)
        return Prediction.of(logs, np.where(alike[:, None], of_near, of_other))

    def vectors(self, prompts: Sequence[str]) -> np.ndarray:
        """Unit vectors in the space that is searched, shape (n, dimensions)."""
        return mapped(self.encoder.vectors(prompts), self.map)

    def retrieved(self, vectors: np.ndarray) -> Neighbourhood:
        """Lengths by the neighbours of vectors, whether or not these are similar enough."""
        rows = [self._retrieved(vector) for vector in vectors]
        logs, levels, best = zip(*rows, strict=True)
        return Neighbourhood(np.array(logs), np.stack(levels), np.array(best))

    def _retrieved(self, vector: np.ndarray) -> tuple[float, FloatArray, float]:
        near, logs = self.memory.search(vector, self.config.neighbours)
        if not len(near):
            return np.nan, np.full(len(LEVELS), np.nan), -np.inf
        weights = np.exp((near - near.max()) / self.config.temperature)
        weights /= weights.sum()
        means, known = np.nanmean(logs, axis=1), ~np.isnan(logs)
        # Of a neighbour with several draws each has an equal part of its weight.
        shares = np.where(known, (weights / known.sum(axis=1))[:, None], 0)[known]
        levels = np.quantile(logs[known], LEVELS, weights=shares, method="inverted_cdf")
        return float(weights @ means), levels, float(near[0])

    def arrays(self) -> Arrays:
        around = self.near.stored("near") | self.far.stored("far")
        return {"map": self.map} | around | self.fallback.arrays()

    def files(self) -> dict[str, bytes]:
        """The other files of its folder, which needs no other: encoder, tokenizer, memory."""
        return self.encoder.files() | {MEMORY: self.memory.to_bytes()}

    def metadata(self) -> dict[str, Any]:
        reads = {"longest_tokens": self.encoder.longest_tokens, "cut": self.encoder.cut}
        return {"reads": reads, "found": self.training}

    @classmethod
    def from_arrays(cls, arrays: Arrays, card: dict[str, Any]) -> "RetrievalProxy":
        folder, config = card["folder"], RetrievalConfig(**card["config"])
        near, far = (ResidualQuantiles.restored(name, arrays) for name in ("near", "far"))
        fallback = Mlp.from_arrays(arrays)
        stored = (folder / MEMORY).read_bytes()
        memory = VectorIndex.from_bytes(stored, len(fallback.layers[0][0]))
        encoder = OnnxEncoder.in_folder(folder, **card["reads"])
        return cls(config, encoder, arrays["map"], memory, fallback, near, far, card["found"])


def mapped(vectors: np.ndarray, map_: np.ndarray) -> np.ndarray:
    """Unit vectors, shape (n, hidden), in the space that is searched, each alone."""
    return np.stack([unit(vector @ map_) for vector in vectors])


def scaled(vectors: np.ndarray) -> np.ndarray:
    """Numbers of about 1, whatever the number of dimensions."""
    return vectors * np.sqrt(vectors.shape[-1], dtype=np.float32)
