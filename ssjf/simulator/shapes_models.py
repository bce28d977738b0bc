"""Sizes of the models that ALISE was evaluated with: weights and KV bytes by arithmetic.

Layer sizes are those of the published model configurations; numbers in the weights follow.
"""

from dataclasses import dataclass
from typing import Literal

from ssjf.errors import unknown
from ssjf.simulator.sizes import Sizes

BYTES = 2  # of a number: float16 or bfloat16


@dataclass(frozen=True)
class ModelShape(Sizes):
    """A decoder by name.

    ``family`` says what goes with a layer: ``opt`` has biases, learned positions and one table
    for both embeddings; ``neox`` (Pythia) biases and two tables; ``llama`` three matrices in the
    feed-forward part, no biases, two tables.
    """

    name: str
    family: Literal["opt", "neox", "llama"]

    @property
    def kv_width(self) -> int:
        """Numbers in one key, all heads together."""
        return self.hidden // self.heads * self.kv_heads

    @property
    def parameters(self) -> int:
        """Numbers in the weights."""
        biased = self.family != "llama"
        attention = 2 * self.hidden * (self.hidden + self.kv_width)
        forward = (2 if biased else 3) * self.hidden * self.inner
        biases = (2 * self.hidden + 2 * self.kv_width + self.inner + self.hidden) * biased
        norm = self.hidden * (2 if biased else 1)
        layer = attention + forward + biases + 2 * norm
        return self.layers * layer + norm + self._embeddings()

    def _embeddings(self) -> int:
        table = self.vocabulary * self.hidden
        if self.family == "opt":
            return table + (self.context_tokens + 2) * self.hidden  # positions from 2 on
        return 2 * table

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights."""
        return BYTES * self.parameters

    @property
    def kv_bytes_per_token(self) -> int:
        """A key and a value in each layer."""
        return 2 * BYTES * self.layers * self.kv_width


_SHAPES = (
    ModelShape(32, 2560, 32, 32, 10240, 50272, 2048, "opt-2.7b", "opt"),
    ModelShape(32, 4096, 32, 32, 16384, 50272, 2048, "opt-6.7b", "opt"),
    ModelShape(40, 5120, 40, 40, 20480, 50272, 2048, "opt-13b", "opt"),
    ModelShape(32, 4096, 32, 32, 11008, 32000, 2048, "llama-7b", "llama"),
    ModelShape(40, 5120, 40, 40, 13824, 32000, 2048, "llama-13b", "llama"),
    ModelShape(36, 5120, 40, 40, 20480, 50688, 2048, "pythia-12b", "neox"),
)
SHAPES = {shape.name: shape for shape in _SHAPES}


def shape(name: str) -> ModelShape:
    """The shape of that name; unknown names raise, listing the known ones."""
    if name not in SHAPES:
        raise unknown("model shape", name, SHAPES)
    return SHAPES[name]
