"""Trains an encoder with a head; needs PyTorch and transformers (the extra ``train``)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ssjf.errors import InputError
from ssjf.proxy.base import NO_RESIDUALS, TrainingRows, fit_residuals
from ssjf.proxy.encoder.heads import HEADS, RANKERS, EncoderConfig, ranked, scale_of
from ssjf.proxy.encoder.proxy import EncoderProxy, OnnxEncoder


def train(rows: TrainingRows, config: EncoderConfig, keep: Path | None = None) -> EncoderProxy:
    """Tune an encoder on the training rows; ``keep`` is a folder for checkpoints."""
    import torch

    from ssjf.proxy.encoder.network import Network, backbone, to_onnx
    from ssjf.proxy.encoder.trainer import tune

    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device is 'cuda', but PyTorch finds no GPU here; allowed: cpu")
    torch.set_num_threads(config.threads)
    tokenizer_json, model = backbone(config.backbone, config.longest_tokens, config.encoder_dropout)
    if not config.tune_embeddings:
        model.get_input_embeddings().requires_grad_(False)
    percentiles = np.array(HEADS[config.head].percentiles)
    scale = scale_of(rows.draws[rows.known(rows.train)], percentiles)
    torch.manual_seed(config.seed)
    outputs = HEADS[config.head].outputs(scale)
    net = Network(model, config, outputs, rows.targets.shape[1] - 1).to(config.device)
    encoder = OnnxEncoder(b"", tokenizer_json, config.longest_tokens, config.cut)
    history = tune(net, examples(rows, encoder), scale, config, keep)
    encoder = replace(encoder, model=to_onnx(net.cpu().eval(), outputs))
    proxy = EncoderProxy(encoder, config.head, config.decode, scale, NO_RESIDUALS, history)
    return _calibrated(proxy, rows, config)


def examples(
    rows: TrainingRows, encoder: OnnxEncoder
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Make the examples of the training and of the validation rows.

    Each has ids (tokens,); logarithms draws (m,) and also (a,), NaN where unknown, the latter
    standardised by the training rows; row, its index in both lists together; and widest, the most
    ids of any. A training row may have only ``also``.
    """
    train = np.flatnonzero(rows.train & ~np.isnan(rows.targets).all(axis=1))
    used = np.concatenate([train, rows.known(rows.validation)])
    draws = np.where(np.isnan(rows.targets[used, :1]), np.nan, rows.draws[used])
    also = rows.targets[:, 1:]
    if also.shape[1]:
        seen = also[rows.train]
        also = (also - np.nanmean(seen, axis=0)) / np.maximum(np.nanstd(seen, axis=0), 1e-6)
    ids = encoder.ids(rows.prompts_of(used))
    widest = max(map(len, ids))
    both = [
        {"ids": ids[k], "draws": draws[k], "also": also[i], "row": k, "widest": widest}
        for k, i in enumerate(used)
    ]
    validation = sorted(both[len(train) :], key=lambda each: len(each["ids"]))
    return both[: len(train)], validation


def _calibrated(proxy: EncoderProxy, rows: TrainingRows, config: EncoderConfig) -> EncoderProxy:
    """Fit on validation rows a ranker's map to lengths and every head's residual quantiles.

    Predictions are those of the exported model, so that its rounding is calibrated too.
    """
    held = rows.known(rows.validation)
    outputs = proxy.outputs(rows.prompts_of(held))
    scale = proxy.scale
    if config.head in RANKERS:
        scale = ranked(scale, outputs[:, 0], rows.draws[held].mean(axis=1))
    decoded = HEADS[config.head].decode(outputs, scale, config.decode)
    around = fit_residuals(decoded.logs, rows.draws[held], config.bands, decoded.levels)
    return replace(proxy, scale=scale, around=around)
