"""Training an encoder with a head; needs PyTorch and transformers (the extra ``train``)."""

from pathlib import Path
from typing import Any

import numpy as np

from ssjf.errors import InputError
from ssjf.proxy.conformal import LEVELS, Spread, spread
from ssjf.proxy.encoder.config import EncoderConfig
from ssjf.proxy.encoder.heads import HEADS, RANKERS, Scale, ranked, scale_of
from ssjf.proxy.encoder.proxy import EncoderProxy
from ssjf.proxy.encoder.tokenize import Reader
from ssjf.proxy.training import TrainingRows
from ssjf.request import FloatArray


def train(rows: TrainingRows, config: EncoderConfig, keep: Path | None = None) -> EncoderProxy:
    """An encoder tuned on the training rows; ``keep`` holds checkpoints to go on from."""
    import torch

    from ssjf.proxy.encoder.backbone import backbone, check_reads
    from ssjf.proxy.encoder.examples import Examples
    from ssjf.proxy.encoder.network import Network
    from ssjf.proxy.encoder.trainer import Trainer

    _settle(torch, config)
    tokenizer_json, model = backbone(config.backbone, config.encoder_dropout)
    check_reads(config.backbone, model, config.longest_tokens)
    if not config.tune_embeddings:
        model.get_input_embeddings().requires_grad_(False)
    reader = Reader.of(tokenizer_json, config.longest_tokens, config.cut)
    llms = sorted(set(rows.llms or [])) if config.llm else []
    if config.llm and not llms:
        raise InputError("llm is true, but the data do not say which LLM answers (column model)")
    scale = scale_of(rows.draws[rows.known(rows.train)], _percentiles(config))
    examples = Examples.of(rows, reader, llms)
    outputs, also = HEADS[config.head].outputs(scale), rows.targets.shape[1] - 1
    torch.manual_seed(config.seed)
    net = Network(model, config, outputs, also, len(llms)).to(config.device)
    progress = Trainer(net, examples, scale, config, keep).run()
    found = _exported(net, outputs, config, tokenizer_json, scale, llms)
    return _calibrated(found, rows, config, progress.history)


def _settle(torch: Any, config: EncoderConfig) -> None:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device is 'cuda', but PyTorch finds no GPU here; allowed: cpu")
    torch.set_num_threads(config.threads)


def _percentiles(config: EncoderConfig) -> np.ndarray:
    return np.array(HEADS[config.head].percentiles or config.class_percentiles)


def _exported(
    net: Any, outputs: int, config: EncoderConfig, tokenizer_json: str, scale: Scale,
    llms: list[str],
) -> EncoderProxy:  # fmt: skip
    from ssjf.proxy.encoder.onnx_export import exported

    model = exported(net.cpu().eval(), outputs, len(llms), config.int8)
    tensors = {name: each.numpy() for name, each in net.state_dict().items()}
    none = np.zeros((1, len(LEVELS)))
    return EncoderProxy(
        model, tokenizer_json, config.head, config.decode, config.longest_tokens, config.cut,
        tuple(llms), scale, Spread(np.zeros(0), none), tensors, [],
    )  # fmt: skip


def _calibrated(
    found: EncoderProxy, rows: TrainingRows, config: EncoderConfig, history: list[dict[str, Any]]
) -> EncoderProxy:
    """Validation rows give a ranker its unit and every head its distribution.

    They are read through the exported model, so that what it rounds is calibrated too.
    """
    from dataclasses import replace

    held = rows.known(rows.validation)
    prompts = [rows.prompts[i] for i in held]
    llms = [rows.llms[i] for i in held] if rows.llms else None
    out: FloatArray = found.outputs(prompts, llms)
    scale = found.scale
    if config.head in RANKERS:
        scale = ranked(scale, out[:, 0], rows.draws[held].mean(axis=1))
    said = HEADS[config.head].decode(out, scale, config.decode)
    around = spread(said.logs, rows.draws[held], config.bands, said.levels)
    return replace(found, scale=scale, around=around, history=history)
