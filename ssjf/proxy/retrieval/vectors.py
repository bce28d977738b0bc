"""Vectors of prompts, by an encoder in ONNX Runtime, and the options of a retrieval proxy."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from ssjf.config import STRICT
from ssjf.errors import InputError
from ssjf.proxy.encoder.config import EncoderConfig, Layers
from ssjf.proxy.encoder.proxy import (
    MODEL,
    TOKENIZER,
    EncoderProxy,
    Tokenizer,
    open_session,
    output,
)
from ssjf.proxy.io import CARD, load


class RetrievalConfig(BaseModel):
    """Options of a retrieval proxy; the defaults erred least on ``alpaca-vicuna``'s validation.

    encoder: a backbone that is not tuned (``minilm``, another name of ``backbone``, a hub id or a
        folder), or the folder of a trained encoder proxy. Of the former ``pooling``,
        ``longest_tokens`` and ``int8`` can be chosen; the latter reads as it was trained to.
    dimensions: at most so many has the space that is searched, onto which a linear map learnt
        from the training rows (in at most ``epochs``) brings the encoder's vectors; 0 searches
        these themselves.
    neighbours: how many are retrieved. temperature: a neighbour weighs exp(cosine / temperature).
    average: what the weights average, logarithms of lengths or lengths.
    least_similarity: below this cosine of the nearest the MLP, of layers ``hidden``, answers.
    capacity: only the last so many prompts are remembered.
    """

    model_config = STRICT

    encoder: str = Field("minilm", min_length=1)
    pooling: Literal["cls", "mean"] = "mean"
    longest_tokens: int = Field(256, ge=8, le=8192)
    int8: bool = True
    dimensions: int = Field(128, ge=0, le=8192)
    epochs: int = Field(10, ge=1, le=1000)
    neighbours: int = Field(50, ge=1, le=1000)
    temperature: float = Field(0.1, ge=1e-6, le=1e6)
    average: Literal["logs", "tokens"] = "logs"
    least_similarity: float = Field(0.55, ge=-1, le=1)
    hidden: Layers = (128,)
    capacity: int = Field(10**6, ge=1, le=10**7)
    bands: int = Field(5, ge=1, le=100)
    seed: int = Field(0, ge=0, le=2**31 - 1)


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
        # An encoder that tells LLMs apart reads which beside its vector, not in it.
        states = output("vector", self._session, self._tokenizer.ids(prompts))
        return np.stack([unit(each) for each in states])

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer.of(self.tokenizer_json, self.longest_tokens, self.cut)

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
        vectors = cls(
            (folder / MODEL).read_bytes(), (folder / TOKENIZER).read_text(), longest_tokens, cut
        )
        vectors.of(["a"])
        return vectors


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

    from ssjf.proxy.encoder.network import Network, backbone, check_length, to_onnx

    tokenizer_json, model = backbone(config.encoder)
    check_length(config.encoder, model, config.longest_tokens)
    reading = EncoderConfig(backbone=config.encoder, pooling=config.pooling, hidden=())
    torch.manual_seed(config.seed)  # of the head, which is not used here
    onnx = to_onnx(Network(model, reading, 1).eval(), 1, 0, config.int8)
    return Vectors(onnx, tokenizer_json, config.longest_tokens, reading.cut)
