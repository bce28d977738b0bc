"""A trained encoder with its head, which predicts with ONNX Runtime on a CPU."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ssjf.errors import InputError
from ssjf.proxy.base import NO_PREDICTION, Arrays, Prediction, ResidualQuantiles
from ssjf.proxy.encoder.heads import HEADS, Scale
from ssjf.request import FloatArray, IntArray

MODEL, TOKENIZER = "model.onnx", "tokenizer.json"
CHARACTERS_PER_TOKEN = 16  # limits what is read of a long prompt, and its cost
QUARTER = 4  # head-tail takes a quarter from the front: 128 of 512


@dataclass(frozen=True)
class OnnxEncoder:
    """An encoder in ONNX Runtime, with its tokenizer.

    model: bytes of the ONNX model. tokenizer_json: its tokenizer. longest_tokens: of a prompt,
    including [CLS] and [SEP]. ``cut`` keeps the first tokens of a longer prompt (``head``),
    the last (``tail``) or both (``head-tail``).

    The SSJF authors' tail truncation drops [CLS] but still reads its position; this one keeps it.
    """

    model: bytes
    tokenizer_json: str
    longest_tokens: int
    cut: str

    def ids(self, prompts: Sequence[str]) -> list[IntArray]:
        """Token ids of each prompt, at least one."""
        texts = [self._shortened(prompt) for prompt in prompts]
        encoded = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        return [self._cut(each.ids) for each in encoded]

    def _shortened(self, prompt: str) -> str:
        # Broken JSON escapes give lone surrogates, which tokenizers refuse.
        text = prompt.encode("utf-8", "replace").decode()
        most = CHARACTERS_PER_TOKEN * self.longest_tokens
        return text if len(text) <= 2 * most else f"{text[:most]} {text[-most:]}"

    def _cut(self, ids: list[int]) -> IntArray:
        before, after = self._marks
        room = self.longest_tokens - len(before) - len(after)
        if len(ids) > room:
            front = {"head": room, "tail": 0, "head-tail": room // QUARTER}[self.cut]
            ids = ids[:front] + ids[len(ids) - (room - front) :]
        return np.array([*before, *ids, *after] or [0], np.int64)

    @cached_property
    def _tokenizer(self) -> Any:
        import tokenizers

        try:
            tokenizer = tokenizers.Tokenizer.from_str(self.tokenizer_json)
        except Exception as error:  # the package raises no class of its own
            raise InputError(f"the tokenizer is not a tokenizer.json: {error}") from None
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def _marks(self) -> tuple[list[int], list[int]]:
        """Ids of the special tokens before and after a prompt."""
        plain = self._tokenizer.encode("a", add_special_tokens=False).ids
        marked = self._tokenizer.encode("a").ids
        starts = (i for i in range(len(marked)) if plain and marked[i : i + len(plain)] == plain)
        start = next(starts, 0)
        return marked[:start], marked[start + len(plain) :]

    def outputs(self, name: str, prompts: Sequence[str]) -> np.ndarray:
        """Compute an output of the model for n prompts, shape (n, its size), float32.

        Prompts are read one by one, because 8-bit arithmetic uses one scale per batch and a
        prediction must not depend on other prompts. On a CPU batches save little.
        """
        run = self.session.run
        return np.concatenate([run([name], {"ids": ids[None]})[0] for ids in self.ids(prompts)])

    def vectors(self, prompts: Sequence[str]) -> np.ndarray:
        """Unit vectors of prompts, shape (n, hidden), float32."""
        if "vector" not in {each.name for each in self.session.get_outputs()}:
            raise InputError(f"{MODEL} gives no vector; train the encoder with this version")
        return np.stack([unit(each) for each in self.outputs("vector", prompts)])

    @cached_property
    def session(self) -> Any:
        """The ONNX Runtime session; it uses OMP_NUM_THREADS threads (default: one)."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 1)
        options.log_severity_level = 3
        try:
            return onnxruntime.InferenceSession(
                self.model, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the package raises classes of its own, below Exception
            raise ValueError(f"{MODEL} is no model: {error}") from None

    def files(self) -> dict[str, bytes]:
        """Its files in a proxy's folder."""
        return {MODEL: self.model, TOKENIZER: self.tokenizer_json.encode()}

    @classmethod
    def in_folder(cls, folder: Path, longest_tokens: int, cut: str) -> "OnnxEncoder":
        """The inverse of ``files``."""
        model, tokenizer_json = (folder / MODEL).read_bytes(), (folder / TOKENIZER).read_text()
        return cls(model, tokenizer_json, longest_tokens, cut)


def unit(vector: np.ndarray) -> np.ndarray:
    """Normalise a vector to length 1, float32; zero stays zero."""
    return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)


@dataclass(frozen=True)
class EncoderProxy:
    """A trained encoder.

    head, decode: as in ``EncoderConfig``. scale: statistics of the training lengths. around:
    residuals of the validation lengths. history: phase, epoch, loss and validation tau.
    """

    encoder: OnnxEncoder
    head: str
    decode: str
    scale: Scale
    around: ResidualQuantiles
    history: list[dict[str, Any]]

    def predict(self, prompts: Sequence[str]) -> Prediction:
        """Lengths in tokens, and quantiles."""
        if not len(prompts):
            return NO_PREDICTION
        decoded = HEADS[self.head].decode(self.outputs(prompts), self.scale, self.decode)
        quantiles = self.around.quantiles(decoded.logs, decoded.levels)
        return Prediction.of(decoded.logs, quantiles)

    def outputs(self, prompts: Sequence[str]) -> FloatArray:
        """Outputs of the head, shape (n, outputs)."""
        return self.encoder.outputs("said", prompts).astype(np.float64)

    def arrays(self) -> Arrays:
        return vars(self.around) | self.scale.stored("scale")

    def files(self) -> dict[str, bytes]:
        return self.encoder.files()

    def metadata(self) -> dict[str, Any]:
        return {"history": self.history}

    @classmethod
    def from_arrays(cls, arrays: Arrays, card: dict[str, Any]) -> "EncoderProxy":
        config = card["config"]
        encoder = OnnxEncoder.in_folder(card["folder"], config["longest_tokens"], config["cut"])
        return cls(
            encoder, config["head"], config["decode"], Scale.restored("scale", arrays),
            ResidualQuantiles(arrays["edges"], arrays["residuals"]), card["history"],
        )  # fmt: skip
