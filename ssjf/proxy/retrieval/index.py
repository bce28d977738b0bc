"""A data base of vectors with the lengths of their answers: add, forget, search, save.

The library is faiss: its inverted lists drop a vector at once, keep 2 bytes per dimension and are
made quickly. hnswlib only marks vectors as deleted and keeps 4 bytes per dimension; graphs, its and
usearch's, take longer to make. ``ssjf bench retrieval`` measures this index.
"""

import os
from threading import RLock
from typing import Any

import numpy as np

from ssjf.request import FloatArray, IntArray

EXACT_VECTORS = 20_000  # up to so many, search looks at every vector
LISTS_PROBED = 24
POINTS_PER_LIST = 32  # that k-means places the lists by
ROUNDS = 6
CHUNK = 2**16


class VectorIndex:
    """Unit vectors in float16, and for each the logarithms of at most ``draws`` lengths.

    Of the last ``capacity`` added those are kept that are not forgotten. Up to EXACT_VECTORS a
    search is exact; beyond, vectors lie in about 2 sqrt(n) lists, of which the nearest are
    searched, and new lists are made whenever there are four times as many vectors: adding then
    takes minutes at a million. It may be used by several threads.
    """

    def __init__(self, dimensions: int, draws: int, capacity: int) -> None:
        self._lock = RLock()
        self._index = _empty(dimensions, 1)
        self._next = 0
        # By id modulo capacity; memory that is never written to takes no room.
        self._logs = np.empty((capacity, draws), np.float32)
        self._ids = np.full(capacity, -1, np.int64)

    def __len__(self) -> int:
        return self._index.ntotal

    @property
    def lists(self) -> int:
        """Into how many lists the vectors are sorted; 1 while search is exact."""
        return self._index.nlist

    @property
    def draws(self) -> int:
        """The most lengths that a prompt may have."""
        return self._logs.shape[1]

    def add(self, vectors: np.ndarray, logs: FloatArray) -> IntArray:
        """The ids of new vectors, shape (n,), which rise by age.

        ``vectors`` have shape (n, dimensions), ``logs`` (n, at most draws), NaN where unknown.
        """
        vectors = np.ascontiguousarray(vectors, np.float32)
        with self._lock:
            ids = np.arange(self._next, self._next + len(vectors))
            self._next += len(vectors)
            kept = slice(max(0, len(vectors) - len(self._ids)), None)
            slots = ids[kept] % len(self._ids)
            self.forget(self._ids[slots])
            self._ids[slots], self._logs[slots] = ids[kept], np.nan
            self._logs[slots, : logs.shape[1]] = logs[kept]
            self._insert(vectors[kept], ids[kept])
            return ids

    def forget(self, ids: IntArray) -> int:
        """Drop vectors by their ids; returns how many of them were still there."""
        ids = np.asarray(ids, np.int64)
        with self._lock:
            ids = np.unique(ids[(ids >= 0) & (self._ids[ids % len(self._ids)] == ids)])
            if len(ids):
                self._ids[ids % len(self._ids)] = -1
                self._index.remove_ids(_selected(ids))
            return len(ids)

    def search(self, vector: np.ndarray, k: int) -> tuple[FloatArray, FloatArray]:
        """Cosines (k,), falling, and logarithms of lengths (k, draws); fewer than k if need be."""
        with self._lock:
            found, ids = self._index.search(vector[None], k)
            there = ids[0] >= 0
            logs = self._logs[ids[0, there] % len(self._ids)]
        return found[0, there].astype(np.float64), logs.astype(np.float64)

    def _insert(self, vectors: np.ndarray, ids: IntArray) -> None:
        before, total = self._index, self._index.ntotal + len(vectors)
        if _lists(total) > 2 * before.nlist:
            if before.ntotal:
                old = np.setdiff1d(self._ids[self._ids >= 0], ids)
                vectors = np.concatenate([before.reconstruct_batch(old), vectors])
                ids = np.concatenate([old, ids])
            self._index = _trained(vectors, _lists(total))
        for i in range(0, len(vectors), CHUNK):
            # Rounded here, and to the nearest, which the library does not do.
            rounded = vectors[i : i + CHUNK].astype(np.float16).astype(np.float32)
            self._index.add_with_ids(rounded, ids[i : i + CHUNK])

    def to_bytes(self) -> bytes:
        """All of it, as one safetensors file."""
        from safetensors.numpy import save

        with self._lock:
            ids = np.sort(self._ids[self._ids >= 0])
            return save({
                "next": np.array([self._next]), "ids": ids,
                "logs": self._logs[ids % len(self._ids)],
                "faiss": _faiss().serialize_index(self._index),
            })  # fmt: skip

    @classmethod
    def from_bytes(cls, data: bytes, dimensions: int, capacity: int) -> "VectorIndex":
        """The inverse of ``to_bytes``; ValueError for bytes that are something else."""
        from safetensors.numpy import load

        arrays = load(data)
        ids, logs = arrays["ids"], arrays["logs"]
        try:
            index = _faiss().deserialize_index(arrays["faiss"])
        except RuntimeError:
            raise ValueError("its vectors are not those of a faiss index") from None
        fits = (index.d, index.ntotal, len(logs)) == (dimensions, len(ids), len(ids))
        if not fits or len(np.unique(ids % capacity)) < len(ids):
            raise ValueError("its vectors and lengths do not fit together")
        found = cls(dimensions, logs.shape[1], capacity)
        found._index, found._next = index, int(arrays["next"][0])
        index.nprobe = LISTS_PROBED
        found._ids[ids % capacity], found._logs[ids % capacity] = ids, logs
        return found


def _lists(vectors: int) -> int:
    return 1 if vectors <= EXACT_VECTORS else round(2 * vectors**0.5)


def _faiss() -> Any:
    """The package; OMP_NUM_THREADS says how many threads (by default one)."""
    import faiss

    faiss.omp_set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    return faiss


def _empty(dimensions: int, lists: int) -> Any:
    faiss = _faiss()
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(dimensions), dimensions, lists, faiss.ScalarQuantizer.QT_fp16,
        faiss.METRIC_INNER_PRODUCT, False,
    )  # fmt: skip
    index.nprobe = LISTS_PROBED
    index.cp.niter, index.cp.max_points_per_centroid = ROUNDS, POINTS_PER_LIST
    index.cp.min_points_per_centroid = 1
    if lists == 1:
        index.train(np.ones((1, dimensions), np.float32))
    index.set_direct_map_type(faiss.DirectMap.Hashtable)  # finds what is to be forgotten
    return index


def _trained(vectors: np.ndarray, lists: int) -> Any:
    """An empty index whose lists lie where the vectors do."""
    index = _empty(vectors.shape[1], lists)
    points = min(len(vectors), POINTS_PER_LIST * lists)
    some = np.random.default_rng(0).choice(len(vectors), points, replace=False)
    index.train(vectors[np.sort(some)])
    return index


def _selected(ids: IntArray) -> Any:
    faiss = _faiss()
    return faiss.IDSelectorArray(len(ids), faiss.swig_ptr(ids))
