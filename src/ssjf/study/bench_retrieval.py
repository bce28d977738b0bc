"""How fast past prompts are searched: every size in a process of its own, on one thread."""

import json
import statistics
import sys
import time
from collections.abc import Sequence

import numpy as np

from ssjf.proxy.retrieval_index import CHUNK, VectorIndex
from ssjf.study.bench_process import in_own_process, most_resident_kb
from ssjf.study.proxy_spec import read_spec

SIZES = (10_000, 100_000, 1_000_000)
DIMENSIONS = 384  # of MiniLM
QUERIES = 100
TRAITS, SHARES = (32, 64), (0.3, 0.3)  # how many of each kind, and of the variance they make
DECAY = 3.0  # dimension i varies as 1 / (1 + i / DECAY)


def retrieval(sizes: Sequence[int] = SIZES) -> list[dict[str, float]]:
    """Speed and recall of ``VectorIndex`` by the number of vectors it holds.

    Objects with ``vectors``, ``dimensions``, ``neighbours`` (k of the spec ``retrieval``),
    ``lists`` (1: every vector is looked at), ``build_seconds`` (all added at once), ``ms`` (median
    of a search), ``recall`` (share of the k nearest that is found; mean over ``QUERIES``),
    ``bytes_per_vector`` (as stored, lengths included) and ``rss_mb`` (most memory resident while
    building, of which ``vectors_mb`` are the vectors to be added).
    """
    return [in_own_process(__name__, size) for size in sizes]


def clustered(n: int, seed: int, dimensions: int = DIMENSIONS) -> np.ndarray:
    """Unit vectors of prompts that share traits (a task and a subject, say), shape (n, dimensions).

    Fitted to MiniLM's vectors of Alpaca prompts: about as near lie the nearest of a held-out
    prompt, and about as many lists hold them. The traits are the same for every seed.
    """
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(0)
    scale = (1 / np.sqrt(1 + np.arange(dimensions) / DECAY)).astype(np.float32)
    traits = [
        np.sqrt(np.float32(share)) * scale * fixed.standard_normal((count, dimensions), np.float32)
        for count, share in zip(TRAITS, SHARES, strict=True)
    ]
    found = np.empty((n, dimensions), np.float32)
    for start in range(0, n, CHUNK):
        part = found[start : start + CHUNK]
        rng.standard_normal(out=part, dtype=np.float32)
        part *= np.sqrt(1 - sum(SHARES)) * scale
        for trait in traits:
            part += trait[rng.integers(0, len(trait), len(part))]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return found


def case(size: int) -> dict[str, float]:
    """One size, measured in this process."""
    k = read_spec("retrieval").config.neighbours
    vectors, queries = clustered(size, 1), clustered(QUERIES, 2)
    index = VectorIndex(DIMENSIONS, 1, size)
    started = time.perf_counter()
    index.add(vectors, np.zeros((size, 1)))
    build = time.perf_counter() - started
    resident = most_resident_kb()
    milliseconds, recalls = [], []
    for query in queries:
        started = time.perf_counter()
        found, _ = index.search(query, k)
        milliseconds.append(1e3 * (time.perf_counter() - started))
        recalls.append(recall(found, vectors @ query, k))
    return {
        "vectors": size,
        "dimensions": DIMENSIONS,
        "neighbours": k,
        "lists": index.lists,
        "build_seconds": round(build, 1),
        "ms": round(statistics.median(milliseconds), 3),
        "recall": round(statistics.mean(recalls), 4),
        "bytes_per_vector": round(len(index.to_bytes()) / size, 1),
        "rss_mb": round(resident / 1024, 1),
        "vectors_mb": round(vectors.nbytes / 2**20, 1),
    }


def recall(found: np.ndarray, cosines: np.ndarray, k: int) -> float:
    """The share of the k largest cosines that was found, to within what float16 rounds."""
    least = np.partition(cosines, -k)[-k]
    return float(np.sum(found >= least - 1e-4) / k)


if __name__ == "__main__":
    print(json.dumps(case(int(sys.argv[1]))))
