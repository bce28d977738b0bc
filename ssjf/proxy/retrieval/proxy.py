"""The retrieval proxy: a prompt is answered at about the length of past prompts that are like it.

Of ALISE's predictor (arXiv 2410.23537) no more is known than this: a pre-trained encoder, a vector
data base of past prompts, similarity search, the weighted average of the retrieved lengths, and an
MLP when nothing similar is found. How each is done here is ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from ssjf.errors import InputError
from ssjf.proxy.base import Prediction
from ssjf.proxy.conformal import LEVELS, LONGEST_TOKENS, ResidualQuantiles, tokens
from ssjf.proxy.retrieval.index import VectorIndex
from ssjf.proxy.retrieval.vectors import RetrievalConfig, Vectors, unit
from ssjf.request import FloatArray, IntArray

MEMORY = "memory.safetensors"


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

    def arrays(self) -> dict[str, np.ndarray]:
        """Its layers by name."""
        named = [(f"mlp.{i}", layer) for i, layer in enumerate(self.layers)]
        return {f"{name}.{part}": each for name, layer in named
                for part, each in zip(("weights", "bias"), layer, strict=True)}  # fmt: skip

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "Mlp":
        """The inverse of ``arrays``; ValueError for layers that do not follow each other."""
        count = sum(name.startswith("mlp.") for name in arrays) // 2
        layers = [(arrays[f"mlp.{i}.weights"], arrays[f"mlp.{i}.bias"]) for i in range(count)]
        sizes = [weights.shape[1] for weights, _ in layers]
        follow = all(len(after[0]) == len(layer[1]) for layer, after in pairwise(layers))
        if not follow or sizes != [len(bias) for _, bias in layers] or sizes[-1:] != [1]:
            raise ValueError("the layers of its MLP do not follow each other")
        return cls(layers)


@dataclass(frozen=True)
class Neighbourhood:
    """Lengths by the neighbours of n prompts.

    logs: shape (n,), logarithm of the average length. levels: (n, levels), logarithms of the
    quantiles of their lengths. best: (n,), the largest cosine; -inf where nothing is remembered.
    """

    logs: FloatArray
    levels: FloatArray
    best: FloatArray


@dataclass(frozen=True)
class RetrievalProxy:
    """A trained retrieval proxy, which goes on learning; ours. It may be used by several threads.

    encoder: prompts to vectors. map: shape (hidden, dimensions), into the space that is searched,
    or None. memory: past prompts there. fallback: predicts where no neighbour is similar enough.
    near, far: residuals of the validation lengths of either. training: numbers of its training.
    """

    config: RetrievalConfig
    encoder: Vectors
    map: np.ndarray | None
    memory: VectorIndex
    fallback: Mlp
    near: ResidualQuantiles
    far: ResidualQuantiles
    training: dict[str, Any] = field(default_factory=dict)

    def predict(self, prompts: Sequence[str], llms: Sequence[str] | None = None) -> Prediction:
        """Lengths in tokens, and quantiles: those of the neighbours' lengths, conformalised.

        Each prompt is predicted alone; what is learnt meanwhile counts.
        """
        if not len(prompts):
            return Prediction(np.zeros(0), np.zeros((0, len(LEVELS))), LEVELS)
        vectors = self.vectors(prompts)
        near, other = self.retrieved(vectors), self.fallback.logs(vectors)
        alike = near.best >= self.config.least_similarity
        logs = np.where(alike, near.logs, other)
        quantiles = np.where(
            alike[:, None],
            self.near.quantiles(near.logs, near.levels),
            self.far.quantiles(other),
        )
        return Prediction(tokens(logs), quantiles, LEVELS)

    def vectors(self, prompts: Sequence[str]) -> np.ndarray:
        """Unit vectors in the space that is searched, shape (n, dimensions)."""
        return mapped(self.encoder.of(prompts), self.map)

    def retrieved(self, vectors: np.ndarray) -> Neighbourhood:
        """Lengths by the neighbours of vectors, whether or not these are similar enough."""
        rows = [self._retrieved(vector) for vector in vectors]
        logs, levels, best = zip(*rows, strict=True)
        return Neighbourhood(np.array(logs), np.stack(levels), np.array(best))

    def _retrieved(self, vector: np.ndarray) -> tuple[float, FloatArray, float]:
        near, logs = self.memory.search(vector, self.config.neighbours)
        if not len(near):
            return np.nan, np.full(len(LEVELS), np.nan), -np.inf
        weights = self.weights(near)
        means, known = np.nanmean(logs, axis=1), ~np.isnan(logs)
        plain = self.config.average == "logs"
        mean = weights @ means if plain else np.log(weights @ np.exp(means))
        # Of a neighbour with several draws each has an equal part of its weight.
        shares = np.where(known, (weights / known.sum(axis=1))[:, None], 0)[known]
        levels = np.quantile(logs[known], LEVELS, weights=shares, method="inverted_cdf")
        return float(mean), levels, float(near[0])

    def weights(self, similarities: FloatArray) -> FloatArray:
        """What neighbours of these cosines, shape (..., k), weigh; they sum to 1.

        A cosine of NaN, where there are fewer neighbours, weighs nothing.
        """
        near = np.where(np.isnan(similarities), -np.inf, similarities)
        raised = np.exp((near - near.max(axis=-1, keepdims=True)) / self.config.temperature)
        return raised / raised.sum(axis=-1, keepdims=True)

    def neighbours(self, prompts: Sequence[str]) -> tuple[FloatArray, FloatArray]:
        """Cosines (n, k), falling, and lengths in tokens (n, k, draws) of the nearest past prompts.

        NaN where there are fewer neighbours or draws. A prompt whose first cosine is below
        ``least_similarity`` is one that the MLP answers.
        """
        near = np.full((len(prompts), self.config.neighbours), np.nan)
        lengths = np.full((*near.shape, self.memory.draws), np.nan)
        for i, vector in enumerate(self.vectors(prompts) if len(prompts) else ()):
            similarities, logs = self.memory.search(vector, self.config.neighbours)
            near[i, : len(logs)], lengths[i, : len(logs)] = similarities, np.exp(logs)
        return near, lengths

    def learn(self, prompts: Sequence[str], output_tokens: Sequence[float]) -> IntArray:
        """Remember prompts and the lengths of their answers; their ids, shape (n,), rising."""
        lengths = np.asarray(output_tokens, np.float64)
        if lengths.shape != (len(prompts),):
            raise InputError(f"{len(prompts)} prompts and {lengths.size} lengths; be they as many")
        if not ((lengths >= 1) & (lengths <= LONGEST_TOKENS)).all():
            raise InputError(f"output_tokens must be numbers from 1 to {LONGEST_TOKENS:g}")
        if not len(prompts):
            return np.zeros(0, np.int64)
        return self.memory.add(self.vectors(prompts), np.log(lengths)[:, None])

    def forget(self, ids: Sequence[int] | IntArray) -> int:
        """Drop what ``learn`` gave these ids; how many of them were still remembered."""
        return self.memory.forget(np.asarray(ids, np.int64))

    def arrays(self) -> dict[str, np.ndarray]:
        """The weights, by name."""
        own = {"map": self.map} if self.map is not None else {}
        for name, around in (("near", self.near), ("far", self.far)):
            own |= {f"{name}.edges": around.edges, f"{name}.residuals": around.residuals}
        return own | self.fallback.arrays()

    def files(self) -> dict[str, bytes]:
        """The other files of its folder, which needs no other: encoder, tokenizer, memory."""
        return self.encoder.files() | {MEMORY: self.memory.to_bytes()}

    def metadata(self) -> dict[str, Any]:
        """Entries of its card beside those on its training."""
        reads = {"longest_tokens": self.encoder.longest_tokens, "cut": self.encoder.cut}
        return {"reads": reads, "found": self.training}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], card: dict[str, Any]) -> "RetrievalProxy":
        """The inverse of ``arrays`` and ``files``; ValueError for parts that do not fit."""
        folder, config = card["folder"], RetrievalConfig(**card["config"])
        near, far = (
            ResidualQuantiles(arrays[f"{name}.edges"], arrays[f"{name}.residuals"])
            for name in ("near", "far")
        )
        fallback = Mlp.from_arrays(arrays)
        dimensions = len(fallback.layers[0][0])
        memory = VectorIndex.from_bytes(
            (folder / MEMORY).read_bytes(), dimensions, config.capacity
        )  # fmt: skip
        encoder = Vectors.in_folder(folder, **card["reads"])
        proxy = cls(config, encoder, arrays.get("map"), memory, fallback, near, far, card["found"])
        if proxy.vectors(["a"]).shape[1] != dimensions:
            raise ValueError(f"its encoder does not give the {dimensions} dimensions it searches")
        return proxy


def mapped(vectors: np.ndarray, map_: np.ndarray | None) -> np.ndarray:
    """Unit vectors, shape (n, hidden), in the space that is searched, each alone."""
    return vectors if map_ is None else np.stack([unit(vector @ map_) for vector in vectors])


def scaled(vectors: np.ndarray) -> np.ndarray:
    """Numbers of about 1, whatever the number of dimensions."""
    return vectors * np.sqrt(vectors.shape[-1], dtype=np.float32)
