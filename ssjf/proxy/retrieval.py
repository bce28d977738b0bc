"""The retrieval proxy: predicts the length that similar past prompts had.

ALISE's predictor (arXiv 2410.23537) is known only to consist of a pre-trained encoder, a vector
database of past prompts, similarity search, a weighted average of the retrieved lengths, and an MLP
when nothing similar is found. The details here are ours, and there is no MLP: on dissimilar prompts
it was less accurate than the nearest neighbours. Training needs PyTorch (the extra ``train``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from ssjf.config import STRICT
from ssjf.errors import InputError
from ssjf.proxy.base import (
    LEVELS,
    NO_PREDICTION,
    NO_RESIDUALS,
    Arrays,
    Prediction,
    ResidualQuantiles,
    TrainingRows,
    fit_residuals,
)
from ssjf.proxy.encoder.heads import EncoderConfig
from ssjf.proxy.encoder.proxy import EncoderProxy, OnnxEncoder, unit
from ssjf.proxy.io import CARD, load
from ssjf.request import FloatArray

MOST_ROWS = 2**14  # random rows to train the map on: each step compares with all of them
STEPS, BATCHES = 8, (32, 512)  # least steps per epoch, within these batch sizes
LEARNING_RATE, DROPOUT = 2e-3, 0.2
SHARPER = 2  # the map is trained at a temperature lower by this factor

Labelled = tuple[np.ndarray, FloatArray]  # vectors and logarithms of lengths


class RetrievalConfig(BaseModel):
    """Options of a retrieval proxy; the defaults were best on ``alpaca-vicuna``'s validation split.

    encoder: an untuned backbone (``minilm``, another name of ``backbone``, a hub id or a folder),
        which reads ``longest_tokens``, or the folder of a trained encoder proxy.
    dimensions: largest dimension of the search space; a linear map learnt from the training rows
        (in at most ``epochs``) projects the encoder's vectors into it.
    neighbours: number to retrieve. temperature: a neighbour weighs exp(cosine / temperature).
    """

    model_config = STRICT

    encoder: str = Field("minilm", min_length=1)
    longest_tokens: int = Field(256, ge=8, le=8192)
    dimensions: int = Field(128, ge=1, le=8192)
    epochs: int = Field(10, ge=1, le=1000)
    neighbours: int = Field(50, ge=1, le=1000)
    temperature: float = Field(0.1, ge=1e-6, le=1e6)
    bands: int = Field(5, ge=1, le=100)
    seed: int = Field(0, ge=0, le=2**31 - 1)


@dataclass(frozen=True)
class RetrievalProxy(ResidualQuantiles):
    """A trained retrieval proxy, usable by several threads.

    map: projection into the search space, shape (hidden, dimensions). vectors: past prompts there,
    unit vectors (n, dimensions), stored in 16 bits. logs: logarithms of their lengths, (n, draws),
    NaN if unknown. training: numbers of its training.
    """

    map: np.ndarray
    vectors: np.ndarray
    logs: np.ndarray
    encoder: OnnxEncoder
    config: RetrievalConfig
    training: dict[str, Any] = field(default_factory=dict)

    def predict(self, prompts: Sequence[str]) -> Prediction:
        """Lengths in tokens, and quantiles: those of the neighbours' lengths, conformalised.

        Each prompt is predicted alone.
        """
        if not len(prompts):
            return NO_PREDICTION
        logs, levels = self.retrieved(mapped(self.encoder.vectors(prompts), self.map))
        return Prediction.of(logs, self.quantiles(logs, levels))

    def retrieved(self, queries: np.ndarray) -> tuple[FloatArray, FloatArray]:
        """For n queries, the average logarithm of their neighbours' lengths, (n,), and the
        logarithms of the quantiles of those lengths, (n, levels)."""
        rows = [self._retrieved(query) for query in queries]
        return np.array([log for log, _ in rows]), np.stack([levels for _, levels in rows])

    def _retrieved(self, query: np.ndarray) -> tuple[float, FloatArray]:
        cosines = (self.vectors @ query).astype(np.float64)
        k = min(self.config.neighbours, len(cosines))
        near = np.argpartition(cosines, -k)[-k:]
        logs = self.logs[near].astype(np.float64)
        weights = np.exp((cosines[near] - cosines.max()) / self.config.temperature)
        weights /= weights.sum()
        known = ~np.isnan(logs)
        # Several draws of a neighbour share its weight equally.
        shares = np.where(known, (weights / known.sum(axis=1))[:, None], 0)[known]
        levels = np.quantile(logs[known], LEVELS, weights=shares, method="inverted_cdf")
        return float(weights @ np.nanmean(logs, axis=1)), levels

    def arrays(self) -> Arrays:
        arrays = {name: a for name, a in vars(self).items() if isinstance(a, np.ndarray)}
        return arrays | {"vectors": self.vectors.astype(np.float16)}

    def files(self) -> dict[str, bytes]:
        """The other files of its self-contained folder: encoder and tokenizer."""
        return self.encoder.files()

    def metadata(self) -> dict[str, Any]:
        reads = {"longest_tokens": self.encoder.longest_tokens, "cut": self.encoder.cut}
        return {"reads": reads, "found": self.training}

    @classmethod
    def from_arrays(cls, arrays: Arrays, card: dict[str, Any]) -> "RetrievalProxy":
        encoder = OnnxEncoder.in_folder(card["folder"], **card["reads"])
        config, vectors = RetrievalConfig(**card["config"]), arrays["vectors"].astype(np.float32)
        arrays = arrays | {"vectors": vectors}
        return cls(**arrays, encoder=encoder, config=config, training=card["found"])


def mapped(vectors: np.ndarray, map_: np.ndarray) -> np.ndarray:
    """Project vectors, shape (n, hidden), into the search space, as unit vectors."""
    return np.stack([unit(vector @ map_) for vector in vectors])


def train(rows: TrainingRows, config: RetrievalConfig, keep: Path | None = None) -> RetrievalProxy:
    """Fit a retrieval proxy; this takes minutes, so there are no checkpoints.

    The map is trained on the training rows, which are then remembered; validation rows choose the
    epoch and give the distribution.
    """
    known, held = rows.known(rows.train), rows.known(rows.validation)
    encoder, targets = encoder_of(config), rows.targets[:, 0]
    vectors, queries = (encoder.vectors(rows.prompts_of(part)) for part in (known, held))
    map_, errors = fit_map((vectors, targets[known]), (queries, targets[held]), config)
    remembered = mapped(vectors, map_).astype(np.float16).astype(np.float32)
    proxy = RetrievalProxy(
        **vars(NO_RESIDUALS), map=map_, vectors=remembered,
        logs=rows.draws[known].astype(np.float32), encoder=encoder, config=config,
        training={"map_epoch": int(np.argmin(errors)), "map_errors": errors},
    )  # fmt: skip
    logs, levels = proxy.retrieved(mapped(queries, map_))
    return replace(proxy, **vars(fit_residuals(logs, rows.draws[held], config.bands, levels)))


def encoder_of(config: RetrievalConfig) -> OnnxEncoder:
    """Load the encoder of a configuration; InputError if there is none."""
    if (Path(config.encoder) / CARD).is_file():
        proxy = load(config.encoder)
        if not isinstance(proxy, EncoderProxy):
            raise InputError(f"encoder {config.encoder} is a proxy, but not of the kind encoder")
        return proxy.encoder
    import torch

    from ssjf.proxy.encoder.network import Network, backbone, to_onnx

    tokenizer_json, model = backbone(config.encoder, config.longest_tokens)
    reading = EncoderConfig(backbone=config.encoder, hidden=())
    torch.manual_seed(config.seed)  # of the head, which is not used here
    onnx = to_onnx(Network(model, reading, 1).eval(), 1)
    return OnnxEncoder(onnx, tokenizer_json, config.longest_tokens, reading.cut)


def fit_map(
    train: Labelled, held: Labelled, config: RetrievalConfig
) -> tuple[np.ndarray, list[float]]:
    """Fit the linear map into the search space, where prompts of similar lengths are near.

    Metric learning for kernel regression (Weinberger and Tesauro 2007), here with cosines: under
    the map, the weighted mean of all other rows' lengths should predict a training row's length. It
    starts as the principal directions of the training vectors, which preserve cosines best. Each
    step drops a share DROPOUT of the encoder's dimensions. Returns the map with the least error on
    the held rows, (hidden, dimensions), and the mean squared errors of their logarithms before
    training and after each epoch.
    """
    import torch
    from torch.nn.functional import mse_loss, normalize

    order = torch.Generator().manual_seed(config.seed)
    vectors, logs = (torch.tensor(each, dtype=torch.float32) for each in train)
    some = torch.randperm(len(logs), generator=order)[:MOST_ROWS]
    vectors, logs = vectors[some], logs[some]
    queries, answers = (torch.tensor(each, dtype=torch.float32) for each in held)
    map_ = torch.linalg.svd(vectors, full_matrices=False).Vh[: config.dimensions].T.contiguous()
    optimizer = torch.optim.Adam([map_.requires_grad_()], lr=LEARNING_RATE)
    batch = min(max(len(logs) // STEPS, BATCHES[0]), BATCHES[1])
    best, errors = map_.detach().numpy().copy(), []
    for epoch in range(config.epochs + 1):
        if epoch:
            for rows in torch.randperm(len(logs), generator=order).split(batch):
                kept = torch.rand(vectors.shape[1], generator=order) >= DROPOUT
                space = normalize((vectors * kept) @ map_)
                near = space[rows] @ space.T / (config.temperature / SHARPER)
                near[range(len(rows)), rows] = -np.inf  # exclude the row itself
                loss = mse_loss(near.softmax(dim=1) @ logs, logs[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with torch.no_grad():
            cosines = normalize(queries @ map_) @ normalize(vectors @ map_).T
            near, at = cosines.topk(min(config.neighbours, len(logs)))
            found = ((near / config.temperature).softmax(dim=1) * logs[at]).sum(dim=1)
            errors.append(float(mse_loss(found, answers)))
        if errors[-1] <= min(errors):
            best = map_.detach().numpy().copy()
    return best, errors
