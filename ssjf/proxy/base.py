"""What a proxy model is: prompts in, predicted output lengths out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ssjf.request import FloatArray


@dataclass(frozen=True)
class Prediction:
    """Predicted output lengths of n prompts, in tokens.

    ``tokens`` has shape (n,). ``quantiles`` has shape (n, k), one column per entry of
    ``levels``, not decreasing along a row.
    """

    tokens: FloatArray
    quantiles: FloatArray
    levels: tuple[float, ...]


class Proxy(Protocol):
    """A trained proxy model."""

    def predict(self, prompts: Sequence[str], llms: Sequence[str] | None = None) -> Prediction:
        """Predict the output length of each prompt.

        ``llms`` names the LLM that answers each prompt; only a proxy trained to tell LLMs apart
        reads it.
        """
