"""What a request still takes, from its predicted length: ALISE's time model (arXiv 2410.23537).

    prefill: s * T0        decode: n * (alpha * s + beta)

for s prompt tokens and n output tokens. With s fixed at the prompt the decode term leaves out
that each token reads one more than the token before, alpha * n * (n - 1) / 2 in all;
``context_growth`` puts it in.
"""

from dataclasses import dataclass

import numpy as np

from ssjf.errors import InputError
from ssjf.request import FloatArray, IntArray


@dataclass(frozen=True)
class TimeModel:
    """The coefficients, in seconds: T0, alpha and beta."""

    prefill_token_seconds: float
    context_token_seconds: float
    token_seconds: float

    def __post_init__(self) -> None:
        for name in ("prefill_token_seconds", "context_token_seconds", "token_seconds"):
            if not 0 <= getattr(self, name) < 1e4:
                raise InputError(
                    f"{name} of the time model is {getattr(self, name)}; it must be from 0 to 1e4"
                )

    def remaining_seconds(
        self,
        prompt_tokens: IntArray,
        total_tokens: FloatArray,
        generated_tokens: IntArray,
        context_growth: bool,
    ) -> FloatArray:
        """Seconds until the last of ``total_tokens``; columns of shape (n,).

        Prefill is counted until the first token is there, and is not counted again for a
        request that will be recomputed.
        """
        left = total_tokens - generated_tokens
        if context_growth:
            read = left * (prompt_tokens + generated_tokens) + left * (left - 1) / 2
            decode = self.context_token_seconds * read + self.token_seconds * left
        else:
            decode = left * (self.context_token_seconds * prompt_tokens + self.token_seconds)
        prefill = self.prefill_token_seconds * prompt_tokens
        return np.where(generated_tokens == 0, prefill, 0.0) + decode


TOKENS = TimeModel(0.0, 0.0, 1.0)
"""Counts tokens: a second for each."""


def reestimated(predicted_tokens: FloatArray, generated_tokens: IntArray) -> FloatArray:
    """The length that is believed in now, shape (n,): at least one token, always above what is
    generated.

    A prediction doubles whenever it is outlived (our choice: the paper's is not known), so that
    no request stays "almost done" and ahead of all others for as long as it runs.
    """
    total = np.maximum(predicted_tokens, 1.0)
    while (outlived := total <= generated_tokens).any():
        total = np.where(outlived, 2 * total, total)
    return total
