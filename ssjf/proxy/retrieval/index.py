"""Vectors with the lengths of their answers: add, forget, search, save."""

from collections.abc import Sequence
from threading import RLock

import numpy as np

from ssjf.request import FloatArray, IntArray


class VectorIndex:
    """Unit vectors, and for each the logarithms of at most ``draws`` lengths.

    Kept are, of the last ``capacity`` vectors added, those not forgotten. A search looks at every
    vector. It may be used by several threads.
    """

    def __init__(self, dimensions: int, draws: int, capacity: int) -> None:
        self._lock, self._next = RLock(), 0
        # By id modulo capacity; memory that is never written to takes no room.
        self._vectors = np.zeros((capacity, dimensions), np.float32)
        self._logs = np.zeros((capacity, draws), np.float32)
        self._ids = np.full(capacity, -1, np.int64)

    def __len__(self) -> int:
        return int((self._ids >= 0).sum())

    def add(self, vectors: np.ndarray, logs: FloatArray) -> IntArray:
        """Add vectors (n, dimensions) with logarithms of lengths (n, at most draws).

        NaN stands for an unknown length. Returns their ids, shape (n,), which rise by age.
        """
        with self._lock:
            ids = np.arange(self._next, self._next + len(vectors))
            self._next += len(vectors)
            kept = slice(max(0, len(vectors) - len(self._ids)), None)
            self._insert(vectors[kept], ids[kept], logs[kept])
            return ids

    def _insert(self, vectors: np.ndarray, ids: IntArray, logs: np.ndarray) -> None:
        slots = ids % len(self._ids)
        self._ids[slots], self._logs[slots] = ids, np.nan
        self._logs[slots, : logs.shape[1]] = logs
        self._vectors[slots] = vectors.astype(np.float16)  # rounded as they are stored

    def forget(self, ids: Sequence[int] | IntArray) -> int:
        """Drop vectors by their ids; returns how many of them were still there."""
        distinct = np.unique(np.asarray(ids, np.int64))
        slots = distinct % len(self._ids)
        with self._lock:
            there = slots[(distinct >= 0) & (self._ids[slots] == distinct)]
            self._ids[there] = -1
        return len(there)

    def search(self, vector: np.ndarray, k: int) -> tuple[FloatArray, FloatArray]:
        """Cosines (k,), falling, and logarithms of lengths (k, draws); fewer than k if need be."""
        with self._lock:
            used = min(self._next, len(self._ids))
            cosines = self._vectors[:used] @ vector.astype(np.float32)
            cosines[self._ids[:used] < 0] = -np.inf
            near = np.argpartition(cosines, -k)[-k:] if k < used else np.arange(used)
            near = near[np.argsort(-cosines[near], kind="stable")]
            near = near[cosines[near] > -np.inf]
            return cosines[near].astype(np.float64), self._logs[near].astype(np.float64)

    def to_bytes(self) -> bytes:
        """All of it, as one safetensors file."""
        from safetensors.numpy import save

        with self._lock:
            ids = np.sort(self._ids[self._ids >= 0])
            slots = ids % len(self._ids)
            vectors, logs = self._vectors[slots].astype(np.float16), self._logs[slots]
            next_id = np.array([self._next])
        return save({"next": next_id, "ids": ids, "vectors": vectors, "logs": logs})

    @classmethod
    def from_bytes(cls, data: bytes, dimensions: int, capacity: int) -> "VectorIndex":
        """The inverse of ``to_bytes``; ValueError for bytes that are something else."""
        from safetensors.numpy import load

        arrays = load(data)
        ids, logs, vectors = arrays["ids"], arrays["logs"], arrays["vectors"]
        fits = vectors.shape == (len(ids), dimensions) and len(logs) == len(ids)
        if not fits or len(np.unique(ids % capacity)) < len(ids):
            raise ValueError("its vectors and lengths do not fit together")
        index = cls(dimensions, logs.shape[1], capacity)
        index._insert(vectors, ids, logs)
        index._next = int(arrays["next"][0])
        return index
