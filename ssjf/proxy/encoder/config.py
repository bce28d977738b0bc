"""What can be chosen of an encoder's training, and within which limits."""

from dataclasses import dataclass
from typing import Any

from ssjf.errors import InputError
from ssjf.proxy.encoder.heads import HEADS
from ssjf.proxy.limits import check, check_sizes

CHOICES = {
    "head": tuple(HEADS),
    "decode": ("argmax", "expected"),
    "pooling": ("cls", "mean"),
    "cut": ("head", "tail", "head-tail"),
    "precision": ("float32", "bfloat16"),
    "device": ("cpu", "cuda"),
}
LIMITS = {
    "longest_tokens": (8, 8192), "epochs": (1, 1000), "tuned_epochs": (0, 1000),
    "batch": (2, 4096), "learning_rate": (1e-9, 1), "head_learning_rate": (1e-9, 1),
    "weight_decay": (0, 1), "warmup": (0, 1), "dropout": (0, 0.9), "encoder_dropout": (0, 0.9),
    "also_weight": (0, 100),
    "patience": (1, 1000), "bands": (1, 100), "checkpoint_steps": (1, 10**6),
    "threads": (1, 256), "seed": (0, 2**31 - 1),
}  # fmt: skip


@dataclass(frozen=True)
class EncoderConfig:
    """An encoder with a head; see ``CHOICES`` and ``LIMITS``.

    backbone: ``minilm``, ``bert-base-uncased``, ``bert-tiny``, a hub id or a folder.
    cut: which tokens of a longer prompt are read: the first, the last, or a quarter of the first
        and the rest from the end (128 + 384 of 512 in the SSJF authors' code).
    decode: what heads over classes say: the mean length of the likeliest class (the paper's;
        ties), or the length expected over all classes.
    tuned_epochs: after so many epochs the encoder is frozen and only the head learns; 0 never
        tunes it, ``epochs`` always does.
    tune_embeddings: whether the table of tokens is tuned too: half of MiniLM's weights, of which a
        small data set touches few.
    class_percentiles: of the training lengths, where classes part (the paper's by default).
    class_weights: whether rare classes weigh more.
    llm: whether it is told which LLM answers.
    """

    backbone: str = "minilm"
    head: str = "quantiles"
    decode: str = "argmax"
    pooling: str = "mean"
    hidden: tuple[int, ...] = (128, 128)
    longest_tokens: int = 512
    cut: str = "head-tail"
    epochs: int = 3
    tuned_epochs: int = 3
    tune_embeddings: bool = False
    batch: int = 64
    learning_rate: float = 1e-4
    head_learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.06
    dropout: float = 0.1
    encoder_dropout: float = 0.0
    also_weight: float = 0.5
    class_percentiles: tuple[float, ...] = (25.0, 50.0, 75.0, 99.0)
    class_weights: bool = False
    llm: bool = False
    patience: int = 3
    bands: int = 5
    int8: bool = True
    precision: str = "bfloat16"
    device: str = "cpu"
    checkpoint_steps: int = 200
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("hidden", "class_percentiles"):  # TOML and JSON have lists
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, list) else value)
        check(self, LIMITS, CHOICES)
        if self.tuned_epochs > self.epochs:
            raise InputError(
                f"tuned_epochs is {self.tuned_epochs}; it must be at most epochs, {self.epochs}"
            )
        check_sizes("hidden", self.hidden)
        _check_percentiles(self.class_percentiles)


def _check_percentiles(given: tuple[Any, ...]) -> None:
    numbers = all(type(each) in (int, float) for each in given)
    if not numbers or not given or list(given) != sorted(set(given)) or not (
        0 < given[0] <= given[-1] < 100
    ):  # fmt: skip
        raise InputError(
            f"class_percentiles is {list(given)}; it must be numbers between 0 and 100 that rise"
        )
