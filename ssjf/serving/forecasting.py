"""What the worker thread does: predict lengths, and learn from those that finished requests had."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssjf.proxy.base import Proxy
from ssjf.serving.openai import Asked
from ssjf.serving.response import Untaught

WARM_UP = Asked(("Write a list of three words.",))


@dataclass(frozen=True)
class Forecast:
    """A predicted length in tokens.

    tokens: after what was learned. raw: what the proxy said. high: its largest quantile.
    """

    tokens: float
    raw: float
    high: float


class Forecaster:
    """A proxy that learns nothing. ``history``: it was trained to read the turns before, too."""

    def __init__(self, proxy: Proxy, history: bool = False) -> None:
        self.proxy, self.history = proxy, history

    def forecast(self, asked: Sequence[Asked]) -> list[Forecast]:
        """One forecast per request, of one call of the proxy; ValueError if they are no lengths."""
        texts = [text for each in asked for text in each.texts]
        models = [each.model for each in asked for _ in each.texts]
        knows = bool(getattr(self.proxy, "llms", ()))
        found = self.proxy.predict(texts, models if knows else None)
        tokens, high = found.tokens, found.quantiles[:, -1]
        if len(tokens) != len(texts) or not (np.isfinite(tokens) & (tokens > 0)).all():
            raise ValueError("the proxy's predictions are no lengths")
        starts = np.cumsum([0, *(len(each.texts) for each in asked[:-1])])
        raw, above = (np.maximum.reduceat(column, starts) for column in (tokens, high))
        right = self.corrected(asked, raw)
        return [Forecast(*map(float, each)) for each in zip(right, raw, above, strict=True)]

    def corrected(self, asked: Sequence[Asked], tokens: np.ndarray) -> np.ndarray:
        """Predicted lengths, shape (n,), as finished requests correct them."""
        return tokens

    def learn(self, asked: Asked, raw_tokens: float, output_tokens: int) -> None:
        """A request of that model has finished; Untaught if it teaches nothing."""
        raise Untaught("learn_is_none")

    def warm_up(self) -> None:
        """Do everything once: what comes first may take seconds (compiling, imports)."""
        self.forecast([WARM_UP])

    def state(self) -> bytes:
        """What was learned."""
        return b""

    def restore(self, state: bytes) -> None:
        """The inverse of ``state``; ValueError for bytes that are something else."""
