"""Training a retrieval proxy; needs PyTorch and scikit-learn (the extra ``train``).

Training rows teach the map and the MLP and are what is remembered; validation rows choose how
long the map is taught and give the distribution.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from ssjf.proxy.conformal import LEAST_OF_BAND, LEVELS, Spread, spread
from ssjf.proxy.retrieval.config import RetrievalConfig
from ssjf.proxy.retrieval.fallback import fitted
from ssjf.proxy.retrieval.index import VectorIndex
from ssjf.proxy.retrieval.proxy import RetrievalProxy, mapped
from ssjf.proxy.retrieval.vectors import vectors_of
from ssjf.proxy.training import TrainingRows
from ssjf.request import FloatArray

NO_SPREAD = Spread(np.zeros(0), np.zeros((1, len(LEVELS))))


def train(rows: TrainingRows, config: RetrievalConfig, keep: Path | None = None) -> RetrievalProxy:
    """A retrieval proxy; it takes minutes, so nothing is kept for a killed training."""
    taught, held = rows.known(rows.train), rows.known(rows.validation)
    encoder = vectors_of(config)
    vectors, asked = (encoder.of([rows.prompts[i] for i in part]) for part in (taught, held))
    targets, map_, found = rows.targets[:, 0], None, {}
    if config.dimensions:
        from ssjf.proxy.retrieval.projection import learnt

        best = learnt((vectors, targets[taught]), (asked, targets[held]), config)
        map_, found = best.weights, {"map_epoch": best.epoch, "map_errors": best.errors}
    vectors, asked = mapped(vectors, map_), mapped(asked, map_)
    fallback = fitted(vectors, targets[taught], config.hidden, config.seed)
    memory = VectorIndex(vectors.shape[1], rows.draws.shape[1], config.capacity)
    memory.add(vectors, rows.draws[taught])
    proxy = RetrievalProxy(config, encoder, map_, memory, fallback, NO_SPREAD, NO_SPREAD, found)
    return _calibrated(proxy, asked, rows.draws[held])


def _calibrated(proxy: RetrievalProxy, asked: np.ndarray, draws: FloatArray) -> RetrievalProxy:
    """What neighbours say has a spread of its own, and what the MLP says too."""
    said, other = proxy.retrieved(asked), proxy.fallback.logs(asked)
    alike = said.best >= proxy.config.least_similarity
    rows, rest = _enough(alike), _enough(~alike)
    bands = proxy.config.bands
    return replace(
        proxy,
        near=spread(said.logs[rows], draws[rows], bands, said.levels[rows]),
        far=spread(other[rest], draws[rest], bands),
        found=proxy.found | {"fallback_share": round(float((~alike).mean()), 4)},
    )


def _enough(mask: np.ndarray) -> np.ndarray:
    """The rows themselves, or all where these are too few for quantiles."""
    return mask if mask.sum() >= LEAST_OF_BAND else np.ones(len(mask), bool)
