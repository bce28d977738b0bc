"""Options of an encoder's training."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from ssjf.config import STRICT
from ssjf.proxy.encoder.heads import HEADS

Rate = Annotated[float, Field(ge=1e-9, le=1)]
Layers = Annotated[
    tuple[Annotated[int, Field(ge=1, le=8192)], ...], Field(strict=False, max_length=8)
]


class EncoderConfig(BaseModel):
    """Options of an encoder with a head.

    backbone: ``minilm``, ``bert-base-uncased``, ``bert-tiny``, a hub id or a folder.
    cut: which tokens of a longer prompt are read: the first, the last, or a quarter of the first
        and the rest from the end (128 + 384 of 512 in the SSJF authors' code).
    decode: what heads over classes predict: the mean length of the likeliest class (the paper's;
        ties), or the length expected over all classes.
    tuned_epochs: after so many epochs the encoder is frozen and only the head learns; 0 never
        tunes it, ``epochs`` always does.
    tune_embeddings: whether the token embeddings are tuned too: half of MiniLM's weights, of which
        a small data set touches few.
    class_percentiles: of the training lengths, the edges of the classes (default: the paper's).
    class_weights: whether rare classes weigh more.
    llm: whether the LLM that answers is an input.
    patience: epochs without a better validation tau after which training stops.
    precision: ``bfloat16`` holds where the device computes in it natively, else float32.
    """

    model_config = STRICT

    backbone: str = Field("minilm", min_length=1)
    head: Literal[tuple(HEADS)] = "quantiles"  # type: ignore[valid-type]
    decode: Literal["argmax", "expected"] = "argmax"
    pooling: Literal["cls", "mean"] = "mean"
    hidden: Layers = (128, 128)
    longest_tokens: int = Field(512, ge=8, le=8192)
    cut: Literal["head", "tail", "head-tail"] = "head-tail"
    epochs: int = Field(3, ge=1, le=1000)
    tuned_epochs: int = Field(3, ge=0, le=1000)
    tune_embeddings: bool = False
    batch: int = Field(64, ge=2, le=4096)
    learning_rate: Rate = 1e-4
    head_learning_rate: Rate = 1e-3
    weight_decay: float = Field(0.01, ge=0, le=1)
    warmup: float = Field(0.06, ge=0, le=1)
    dropout: float = Field(0.1, ge=0, le=0.9)
    encoder_dropout: float = Field(0.0, ge=0, le=0.9)
    also_weight: float = Field(0.5, ge=0, le=100)
    class_percentiles: Annotated[tuple[float, ...], Field(strict=False)] = (25.0, 50.0, 75.0, 99.0)
    class_weights: bool = False
    llm: bool = False
    patience: int = Field(3, ge=1, le=1000)
    bands: int = Field(5, ge=1, le=100)
    int8: bool = True
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    device: Literal["cpu", "cuda"] = "cpu"
    checkpoint_steps: int = Field(200, ge=1, le=10**6)
    threads: int = Field(1, ge=1, le=256)
    seed: int = Field(0, ge=0, le=2**31 - 1)

    @model_validator(mode="after")
    def _check(self) -> Any:
        if self.tuned_epochs > self.epochs:
            raise ValueError(
                f"tuned_epochs is {self.tuned_epochs}; it must be at most epochs, {self.epochs}"
            )
        edges = self.class_percentiles
        if not edges or [*edges] != sorted(set(edges)) or not 0 < edges[0] <= edges[-1] < 100:
            raise ValueError(
                f"class_percentiles is {[*edges]}; it must be numbers between 0 and 100 that rise"
            )
        return self
