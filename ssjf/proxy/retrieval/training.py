"""Training a retrieval proxy; needs PyTorch and scikit-learn (the extra ``train``).

Training rows teach the map and the MLP and are what is remembered; validation rows choose how
long the map is taught and give the distribution.
"""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ssjf.errors import InputError
from ssjf.proxy.base import LEAST_OF_BAND, NO_RESIDUALS, TrainingRows, fit_residuals
from ssjf.proxy.encoder.heads import EncoderConfig
from ssjf.proxy.encoder.proxy import EncoderProxy, OnnxEncoder
from ssjf.proxy.io import CARD, load
from ssjf.proxy.retrieval.proxy import (
    Mlp,
    RetrievalConfig,
    RetrievalProxy,
    VectorIndex,
    mapped,
    scaled,
)
from ssjf.request import FloatArray

PENALTY, BATCH, EPOCHS, PATIENCE = 1.0, 200, 50, 5  # of the MLP
MOST_ROWS = 2**14  # of the map; beyond, so many drawn at random: each step compares with all
STEPS, BATCHES = 8, (32, 512)  # least steps of an epoch, and the batches within which they are made
LEARNING_RATE, DROPOUT = 2e-3, 0.2
SHARPER = 2  # so many times lower is the temperature the map is taught at

Labelled = tuple[np.ndarray, FloatArray]  # vectors and logarithms of lengths


def train(rows: TrainingRows, config: RetrievalConfig, keep: Path | None = None) -> RetrievalProxy:
    """Fit a retrieval proxy; it takes minutes, so nothing is kept for a killed training."""
    known, held = rows.known(rows.train), rows.known(rows.validation)
    encoder = encoder_of(config)
    vectors, queries = (encoder.vectors(rows.prompts_of(part)) for part in (known, held))
    targets = rows.targets[:, 0]
    map_, errors = fit_map((vectors, targets[known]), (queries, targets[held]), config)
    numbers = {"map_epoch": int(np.argmin(errors)), "map_errors": errors}
    vectors, queries = mapped(vectors, map_), mapped(queries, map_)
    fallback = fit_mlp(vectors, targets[known], config.hidden, config.seed)
    memory = VectorIndex.of(vectors[-config.capacity :], rows.draws[known][-config.capacity :])
    proxy = RetrievalProxy(
        config, encoder, map_, memory, fallback, NO_RESIDUALS, NO_RESIDUALS, numbers
    )
    return _calibrated(proxy, queries, rows.draws[held])


def encoder_of(config: RetrievalConfig) -> OnnxEncoder:
    """The encoder that a configuration names; InputError where there is none."""
    if not (Path(config.encoder) / CARD).is_file():
        return _untuned(config)
    proxy = load(config.encoder)
    if not isinstance(proxy, EncoderProxy):
        raise InputError(f"encoder {config.encoder} is a proxy, but not of the kind encoder")
    return proxy.encoder


def _untuned(config: RetrievalConfig) -> OnnxEncoder:
    import torch

    from ssjf.proxy.encoder.network import Network, backbone, to_onnx

    tokenizer_json, model = backbone(config.encoder, config.longest_tokens)
    reading = EncoderConfig(backbone=config.encoder, hidden=())
    torch.manual_seed(config.seed)  # of the head, which is not used here
    onnx = to_onnx(Network(model, reading, 1).eval(), 1, 0)
    return OnnxEncoder(onnx, tokenizer_json, config.longest_tokens, reading.cut)


def _calibrated(proxy: RetrievalProxy, queries: np.ndarray, draws: FloatArray) -> RetrievalProxy:
    """Neighbours and the MLP have residuals of their own."""
    near, other = proxy.retrieved(queries), proxy.fallback.logs(queries)
    alike = near.best >= proxy.config.least_similarity
    rows, rest = _enough(alike), _enough(~alike)
    bands = proxy.config.bands
    return replace(
        proxy,
        near=fit_residuals(near.logs[rows], draws[rows], bands, near.levels[rows]),
        far=fit_residuals(other[rest], draws[rest], bands),
        training=proxy.training | {"fallback_share": round(float((~alike).mean()), 4)},
    )


def _enough(mask: np.ndarray) -> np.ndarray:
    """The rows themselves, or all where these are too few for quantiles."""
    return mask if mask.sum() >= LEAST_OF_BAND else np.ones(len(mask), bool)


def fit_mlp(vectors: np.ndarray, logs: FloatArray, hidden: tuple[int, ...], seed: int) -> Mlp:
    """Fit an MLP by least squares; a tenth of the rows says when to stop."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    model = MLPRegressor(
        hidden_layer_sizes=hidden, alpha=PENALTY, early_stopping=True, random_state=seed,
        batch_size=min(BATCH, len(logs)), max_iter=EPOCHS, n_iter_no_change=PATIENCE,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mean, scale = logs.mean(), max(logs.std(), 1e-6)
        model.fit(scaled(vectors), (logs - mean) / scale)
    model.coefs_[-1] = model.coefs_[-1] * scale
    model.intercepts_[-1] = model.intercepts_[-1] * scale + mean
    parts = zip(model.coefs_, model.intercepts_, strict=True)
    return Mlp([(weights.astype(np.float32), bias.astype(np.float32)) for weights, bias in parts])


def fit_map(
    train: Labelled, held: Labelled, config: RetrievalConfig
) -> tuple[np.ndarray, list[float]]:
    """Fit the linear map into the space that is searched: near are prompts of like lengths.

    Metric learning for kernel regression (Weinberger and Tesauro 2007), here with cosines: the
    map under which a training row's length is best the weighted mean of all others'. It begins as
    the principal directions of the training vectors, which keep cosines best. In each step it
    must do without a share DROPOUT of the encoder's dimensions. Returned are the map that errs
    least on the held rows, (hidden, dimensions), and the mean squared errors of held logarithms
    before training and after each epoch.
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
                loss = mse_loss(_leave_one_out(space, logs, rows, config), logs[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with torch.no_grad():
            near = _nearest(normalize(queries @ map_), normalize(vectors @ map_), logs, config)
            errors.append(float(mse_loss(near, answers)))
        if errors[-1] <= min(errors):
            best = map_.detach().numpy().copy()
    return best, errors


def _leave_one_out(space: Any, logs: Any, rows: Any, config: RetrievalConfig) -> Any:
    """Of each of the rows the weighted mean of all others' logarithms, shape (b,)."""
    near = space[rows] @ space.T / (config.temperature / SHARPER)
    near[range(len(rows)), rows] = -np.inf
    return near.softmax(dim=1) @ logs


def _nearest(queries: Any, space: Any, logs: Any, config: RetrievalConfig) -> Any:
    """The weighted mean of the nearest, shape (b,), as it will be predicted."""
    near, at = (queries @ space.T).topk(min(config.neighbours, len(logs)))
    return ((near / config.temperature).softmax(dim=1) * logs[at]).sum(dim=1)
