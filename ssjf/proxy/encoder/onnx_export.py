"""A trained network as an ONNX model that ONNX Runtime serves, its weights in 8 bits if asked."""

import io
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

OPSET = 17
INPUTS, OUTPUTS = ("ids", "llm"), ("said", "vector")


class _OnePrompt(nn.Module):
    """One prompt without padding: ids (1, tokens) and llm (1, llms) to what the head says,
    (1, outputs), and the encoder's vector, (1, hidden)."""

    def __init__(self, net: Any, outputs: int) -> None:
        super().__init__()
        self.net, self.outputs = net, outputs

    def forward(self, ids: Tensor, llm: Tensor | None = None) -> tuple[Tensor, Tensor]:
        llm = torch.zeros(1, 0) if llm is None else llm
        vector = self.net.vectors(ids, torch.ones_like(ids))
        return self.net.said(vector, llm)[:, : self.outputs], vector


def exported(net: Any, outputs: int, llms: int, int8: bool) -> bytes:
    """The bytes of a model.onnx; ``int8`` quantises the weights (dynamic; per channel, which
    rounds less than per tensor)."""
    example = (torch.ones(1, 8, dtype=torch.int64), torch.zeros(1, llms))
    held: Any = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _OnePrompt(net, outputs).eval(), example[: 1 + bool(llms)], held,
            input_names=list(INPUTS[: 1 + bool(llms)]),
            output_names=list(OUTPUTS), dynamic_axes={"ids": {1: "tokens"}}, opset_version=OPSET,
            dynamo=False,
        )  # fmt: skip
    return _quantised(held.getvalue()) if int8 else held.getvalue()


def _quantised(model: bytes) -> bytes:
    import logging

    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().setLevel(logging.ERROR)  # it recommends a step meant for images
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "model.onnx", Path(folder) / "int8.onnx"
        before.write_bytes(model)
        quantize_dynamic(before, after, weight_type=QuantType.QInt8, per_channel=True)
        return after.read_bytes()
