"""From prompts to vectors, by an encoder in ONNX Runtime: what a retrieval proxy searches with."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ssjf.errors import InputError
from ssjf.proxy.encoder.proxy import MODEL, TOKENIZER, EncoderProxy, open_session, output
from ssjf.proxy.encoder.tokenize import Reader
from ssjf.proxy.io import CARD, load
from ssjf.proxy.retrieval.config import RetrievalConfig


@dataclass(frozen=True)
class Vectors:
    """An encoder without its head.

    model: bytes of the ONNX model. tokenizer_json: its tokenizer. longest_tokens, cut: as in
    ``EncoderConfig``.
    """

    model: bytes
    tokenizer_json: str
    longest_tokens: int
    cut: str

    def of(self, prompts: Sequence[str]) -> np.ndarray:
        """Unit vectors of prompts, shape (n, hidden), float32; each prompt is read alone."""
        # An encoder that is told which LLM answers reads it beside its vector, not in it.
        found = output("vector", self._session, self._reader.ids(prompts))
        return np.stack([unit(each) for each in found])

    @cached_property
    def _reader(self) -> Reader:
        return Reader.of(self.tokenizer_json, self.longest_tokens, self.cut)

    @cached_property
    def _session(self) -> Any:
        session = open_session(self.model)
        if "vector" not in {each.name for each in session.get_outputs()}:
            raise InputError(f"{MODEL} gives no vector; train the encoder with this version")
        return session

    def files(self) -> dict[str, bytes]:
        """The model and its tokenizer, as in the folder of an encoder."""
        return {MODEL: self.model, TOKENIZER: self.tokenizer_json.encode()}

    @classmethod
    def in_folder(cls, folder: Path, longest_tokens: int, cut: str) -> "Vectors":
        """The inverse of ``files``; ValueError for files that are neither."""
        found = cls(
            (folder / MODEL).read_bytes(), (folder / TOKENIZER).read_text(), longest_tokens, cut
        )
        found.of(["a"])
        return found


def unit(vector: np.ndarray) -> np.ndarray:
    """A vector of length 1, float32; zero stays zero."""
    return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)


def vectors_of(config: RetrievalConfig) -> Vectors:
    """The encoder that a configuration names; InputError where there is none."""
    if not (Path(config.encoder) / CARD).is_file():
        return _untuned(config)
    proxy = load(config.encoder)
    if not isinstance(proxy, EncoderProxy):
        raise InputError(f"encoder {config.encoder} is a proxy, but not of the kind encoder")
    return Vectors(proxy.model, proxy.tokenizer_json, proxy.longest_tokens, proxy.cut)


def _untuned(config: RetrievalConfig) -> Vectors:
    import torch

    from ssjf.proxy.encoder.backbone import backbone, check_reads
    from ssjf.proxy.encoder.config import EncoderConfig
    from ssjf.proxy.encoder.network import Network
    from ssjf.proxy.encoder.onnx_export import exported

    tokenizer_json, model = backbone(config.encoder)
    check_reads(config.encoder, model, config.longest_tokens)
    reading = EncoderConfig(backbone=config.encoder, pooling=config.pooling, hidden=())
    torch.manual_seed(config.seed)  # of the head, which says nothing here
    net = Network(model, reading, 1, 0, 0).eval()
    onnx = exported(net, 1, 0, config.int8)
    return Vectors(onnx, tokenizer_json, config.longest_tokens, reading.cut)
