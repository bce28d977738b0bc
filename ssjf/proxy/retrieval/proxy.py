"""The retrieval proxy: a prompt is answered at about the length of past prompts that are like it.

Of ALISE's predictor (arXiv 2410.23537) no more is known than this: a pre-trained encoder, a vector
data base of past prompts, similarity search, the weighted average of the retrieved lengths, and an
MLP when nothing similar is found. How each is done here is ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from ssjf.errors import InputError
from ssjf.proxy.base import Prediction
from ssjf.proxy.conformal import LEVELS, LONGEST_TOKENS, Spread, tokens
from ssjf.proxy.retrieval.config import RetrievalConfig
from ssjf.proxy.retrieval.fallback import Mlp
from ssjf.proxy.retrieval.index import VectorIndex
from ssjf.proxy.retrieval.vectors import Vectors, unit
from ssjf.request import FloatArray, IntArray

MEMORY = "memory.safetensors"


@dataclass(frozen=True)
class Retrieved:
    """What the neighbours of n prompts say.

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
    or None. memory: past prompts there. fallback: what answers where no neighbour is similar
    enough. near, far: what the validation lengths missed either by. found: of its training.
    """

    config: RetrievalConfig
    encoder: Vectors
    map: np.ndarray | None
    memory: VectorIndex
    fallback: Mlp
    near: Spread
    far: Spread
    found: dict[str, Any] = field(default_factory=dict)

    def predict(self, prompts: Sequence[str], llms: Sequence[str] | None = None) -> Prediction:
        """Lengths in tokens, and quantiles: those of the neighbours' lengths, conformalised.

        Whatever else is asked changes nothing; what is learnt meanwhile does.
        """
        if not len(prompts):
            return Prediction(np.zeros(0), np.zeros((0, len(LEVELS))), LEVELS)
        vectors = self.vectors(prompts)
        said, other = self.retrieved(vectors), self.fallback.logs(vectors)
        alike = said.best >= self.config.least_similarity
        logs = np.where(alike, said.logs, other)
        quantiles = np.where(
            alike[:, None], self.near.around(said.logs, said.levels), self.far.around(other)
        )
        return Prediction(tokens(logs), quantiles, LEVELS)

    def vectors(self, prompts: Sequence[str]) -> np.ndarray:
        """Unit vectors in the space that is searched, shape (n, dimensions)."""
        return mapped(self.encoder.of(prompts), self.map)

    def retrieved(self, vectors: np.ndarray) -> Retrieved:
        """What the neighbours of vectors say, whether or not these are similar enough."""
        rows = [self._retrieved(vector) for vector in vectors]
        logs, levels, best = zip(*rows, strict=True)
        return Retrieved(np.array(logs), np.stack(levels), np.array(best))

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
            own |= {f"{name}.{f.name}": getattr(around, f.name) for f in fields(Spread)}
        return own | self.fallback.arrays()

    def files(self) -> dict[str, bytes]:
        """The other files of its folder, which needs no other: encoder, tokenizer, memory."""
        return self.encoder.files() | {MEMORY: self.memory.to_bytes()}

    def told(self) -> dict[str, Any]:
        """What its card says beside how it was trained."""
        reads = {"longest_tokens": self.encoder.longest_tokens, "cut": self.encoder.cut}
        return {"reads": reads, "found": self.found}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], card: dict[str, Any]) -> "RetrievalProxy":
        """The inverse of ``arrays`` and ``files``; ValueError for parts that do not fit."""
        folder, config = card["folder"], RetrievalConfig(**card["config"])
        near, far = (Spread(*(arrays[f"{name}.{f.name}"] for f in fields(Spread)))
                     for name in ("near", "far"))  # fmt: skip
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
