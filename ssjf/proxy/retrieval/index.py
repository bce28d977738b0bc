"""Vectors with the lengths of their answers: search, save."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from ssjf.request import FloatArray


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
