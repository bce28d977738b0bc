"""A flat index of vectors with the lengths of their answers: add, forget, search, save."""

import os
from collections.abc import Sequence
from threading import RLock
from typing import Any

import numpy as np

from ssjf.request import FloatArray, IntArray

MOST_FORGOTTEN = 256  # that are still in the flat index, where removing moves all that follows


class VectorIndex:
    """Unit vectors, and for each the logarithms of at most ``draws`` lengths.

    Kept are, of the last ``capacity`` vectors added, those not forgotten. A search looks at every
    vector. It may be used by several threads.
    """

    def __init__(self, dimensions: int, draws: int, capacity: int) -> None:
        faiss = _faiss()
        self._lock = RLock()
        self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(dimensions))
        self._next, self._forgotten = 0, np.zeros(0, np.int64)
        # By id modulo capacity; memory that is never written to takes no room.
        self._logs = np.empty((capacity, draws), np.float32)
        self._ids = np.full(capacity, -1, np.int64)

    def __len__(self) -> int:
        return self._index.ntotal - len(self._forgotten)

    def add(self, vectors: np.ndarray, logs: FloatArray) -> IntArray:
        """Add vectors (n, dimensions) with logarithms of lengths (n, at most draws).

        NaN stands for an unknown length. Returns their ids, shape (n,), which rise by age.
        """
        vectors = np.ascontiguousarray(vectors, np.float32)
        with self._lock:
            ids = np.arange(self._next, self._next + len(vectors))
            self._next += len(vectors)
            kept = slice(max(0, len(vectors) - len(self._ids)), None)
            self._insert(vectors[kept], ids[kept], logs[kept])
            return ids

    def _insert(self, vectors: np.ndarray, ids: IntArray, logs: np.ndarray) -> None:
        slots = ids % len(self._ids)
        self.forget(self._ids[slots])
        self._ids[slots], self._logs[slots] = ids, np.nan
        self._logs[slots, : logs.shape[1]] = logs
        # Rounded as it is stored.
        self._index.add_with_ids(vectors.astype(np.float16).astype(np.float32), ids)

    def forget(self, ids: Sequence[int] | IntArray) -> int:
        """Drop vectors by their ids; returns how many of them were still there."""
        ids = np.asarray(ids, np.int64)
        with self._lock:
            ids = np.unique(ids[(ids >= 0) & (self._ids[ids % len(self._ids)] == ids)])
            self._ids[ids % len(self._ids)] = -1
            self._forgotten = np.concatenate([self._forgotten, ids])
            if len(self._forgotten) > MOST_FORGOTTEN:
                self._index.remove_ids(self._forgotten)
                self._forgotten = self._forgotten[:0]
            return len(ids)

    def search(self, vector: np.ndarray, k: int) -> tuple[FloatArray, FloatArray]:
        """Cosines (k,), falling, and logarithms of lengths (k, draws); fewer than k if need be."""
        with self._lock:
            cosines, ids = self._index.search(vector[None], k + len(self._forgotten))
            kept = (ids[0] >= 0) & (self._ids[ids[0] % len(self._ids)] == ids[0])
            there = np.flatnonzero(kept)[:k]
            logs = self._logs[ids[0, there] % len(self._ids)]
        return cosines[0, there].astype(np.float64), logs.astype(np.float64)

    def to_bytes(self) -> bytes:
        """All of it, as one safetensors file."""
        from safetensors.numpy import save

        with self._lock:
            ids = np.sort(self._ids[self._ids >= 0])
            vectors = self._index.reconstruct_batch(ids).astype(np.float16)
            arrays = {"next": np.array([self._next]), "ids": ids, "vectors": vectors,
                      "logs": self._logs[ids % len(self._ids)]}  # fmt: skip
        return save(arrays)

    @classmethod
    def from_bytes(cls, data: bytes, dimensions: int, capacity: int) -> "VectorIndex":
        """The inverse of ``to_bytes``; ValueError for bytes that are something else."""
        from safetensors.numpy import load

        arrays = load(data)
        ids, logs = arrays["ids"], arrays["logs"]
        vectors = arrays["vectors"] if "vectors" in arrays else _earlier(arrays["faiss"], ids)
        fits = vectors.shape == (len(ids), dimensions) and len(logs) == len(ids)
        if not fits or len(np.unique(ids % capacity)) < len(ids):
            raise ValueError("its vectors and lengths do not fit together")
        index = cls(dimensions, logs.shape[1], capacity)
        index._insert(vectors, ids, logs)
        index._next = int(arrays["next"][0])
        return index


def _earlier(serialized: np.ndarray, ids: IntArray) -> np.ndarray:
    """The vectors of ids in an index with inverted lists, as earlier versions stored them."""
    try:
        return _faiss().deserialize_index(serialized).reconstruct_batch(ids)
    except RuntimeError:
        raise ValueError("its vectors are not those of a faiss index") from None


def _faiss() -> Any:
    """The package; OMP_NUM_THREADS says how many threads (by default one)."""
    import faiss

    faiss.omp_set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    return faiss
