"""A trained encoder with its head: prompts in, predicted lengths out, by ONNX Runtime on a CPU."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ssjf.proxy.base import Prediction
from ssjf.proxy.conformal import LEVELS, Spread, tokens
from ssjf.proxy.encoder.heads import HEADS, Scale
from ssjf.proxy.encoder.tokenize import Reader, one_hot
from ssjf.request import FloatArray, IntArray

MODEL, TOKENIZER = "model.onnx", "tokenizer.json"


@dataclass(frozen=True)
class EncoderProxy:
    """A trained encoder.

    model: bytes of the ONNX model. tokenizer_json: its tokenizer. head, decode, longest_tokens,
    cut: as in ``EncoderConfig``. llms: those it can be told of. scale: what the head knows of the
    training lengths. around: what the validation lengths missed it by. tensors: the weights in
    float32, to be tuned further. history: phase, epoch, loss and validation tau.
    """

    model: bytes
    tokenizer_json: str
    head: str
    decode: str
    longest_tokens: int
    cut: str
    llms: tuple[str, ...]
    scale: Scale
    around: Spread
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    def predict(self, prompts: Sequence[str], llms: Sequence[str] | None = None) -> Prediction:
        """Lengths in tokens, and quantiles; an LLM it was not trained on counts as unknown."""
        if not len(prompts):
            return Prediction(np.zeros(0), np.zeros((0, len(LEVELS))), LEVELS)
        said = HEADS[self.head].decode(self.outputs(prompts, llms), self.scale, self.decode)
        quantiles = self.around.around(said.logs, said.levels)
        return Prediction(tokens(said.logs), quantiles, LEVELS)

    def outputs(self, prompts: Sequence[str], llms: Sequence[str] | None = None) -> FloatArray:
        """What the head says, shape (n, outputs)."""
        told = one_hot(llms or [""] * len(prompts), self.llms)
        return output("said", self.session, self.reader.ids(prompts), told).astype(np.float64)

    @cached_property
    def reader(self) -> Reader:
        """Reads prompts as it was trained to."""
        return Reader.of(self.tokenizer_json, self.longest_tokens, self.cut)

    @cached_property
    def session(self) -> Any:
        """The model in ONNX Runtime; OMP_NUM_THREADS says how many threads (by default one)."""
        return open_session(self.model)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything that is stored in the weights' file, by name."""
        own = {"edges": self.around.edges, "residuals": self.around.residuals}
        return own | self.scale.arrays() | {f"net.{k}": v for k, v in self.tensors.items()}

    def files(self) -> dict[str, bytes]:
        """The other files of its folder."""
        return {MODEL: self.model, TOKENIZER: self.tokenizer_json.encode()}

    def told(self) -> dict[str, Any]:
        """What its card says beside how it was trained."""
        return {"llms": list(self.llms), "history": self.history}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], card: dict[str, Any]) -> "EncoderProxy":
        """The inverse of ``arrays`` and ``files``; ValueError for parts that do not fit."""
        folder, config = card["folder"], card["config"]
        found = cls(
            model=(folder / MODEL).read_bytes(), tokenizer_json=(folder / TOKENIZER).read_text(),
            head=config["head"], decode=config["decode"],
            longest_tokens=config["longest_tokens"], cut=config["cut"],
            llms=tuple(card["llms"]), scale=Scale.from_arrays(arrays),
            around=Spread(arrays["edges"], arrays["residuals"]),
            tensors={k.removeprefix("net."): v for k, v in arrays.items() if k.startswith("net.")},
            history=card["history"],
        )  # fmt: skip
        found._check()
        return found

    def _check(self) -> None:
        """The tokenizer must be the one whose ids the encoder has learnt."""
        tables = [v for k, v in self.tensors.items() if k.endswith("word_embeddings.weight")]
        for table in tables:
            if self.reader.entries > len(table):
                raise ValueError(
                    f"its tokenizer has {self.reader.entries} entries, its encoder {len(table)}"
                )
        if self.head not in HEADS:
            raise ValueError(f"unknown head {self.head!r}")


def output(
    name: str, session: Any, ids: Sequence[IntArray], llms: np.ndarray | None = None
) -> np.ndarray:
    """An output of an open model for each of n prompts, shape (n, its size), float32.

    ids: of each prompt. llms: shape (n, llms), one-hot; none is told where it is left out.
    Prompts are read one by one: 8-bit arithmetic scales over all that it reads together, and a
    prediction must not depend on what else is asked. On a CPU batches save little.
    """
    inputs = [{"ids": each[None]} for each in ids]
    shapes = {each.name: each.shape for each in session.get_inputs()}
    if "llm" in shapes:
        told = np.zeros((len(ids), shapes["llm"][1]), np.float32) if llms is None else llms
        inputs = [each | {"llm": llm[None]} for each, llm in zip(inputs, told, strict=True)]
    return np.concatenate([session.run([name], each)[0] for each in inputs])


def open_session(model: bytes) -> Any:
    """An ONNX model on the CPU; ValueError if it is none."""
    import os

    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 1)
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the package raises classes of its own, below Exception
        raise ValueError(f"{MODEL} is no model: {error}") from None
