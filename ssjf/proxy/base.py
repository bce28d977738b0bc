"""What a proxy model is: prompts in, predicted output lengths out; and what it is trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

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


@dataclass(frozen=True)
class TrainingRows:
    """n prompts with the logarithms of lengths; rows that are in neither mask are not looked at.

    targets: shape (n, s), NaN where unknown. The first column is what is predicted (where there
        are several draws of an answer, their mean); the others (lengths of another LLM's
        answers, say) only help to learn.
    draws: shape (n, m), logarithms of the lengths of single answers.
    train, validation: masks of shape (n,). Validation rows choose when to stop and calibrate
        the distribution; nothing else sees them.
    llms: which LLM answers each prompt, where the rows are of several.
    """

    prompts: Sequence[str]
    targets: FloatArray
    draws: FloatArray
    train: np.ndarray
    validation: np.ndarray
    llms: Sequence[str] | None = None

    def known(self, mask: np.ndarray) -> np.ndarray:
        """The indices of the rows of a mask whose first target is known."""
        return np.flatnonzero(mask & ~np.isnan(self.targets[:, 0]))


class Train(Protocol):
    """Trains one kind of proxy.

    ``keep`` is a folder for checkpoints: what is there from a killed training is gone on with.
    """

    def __call__(self, rows: TrainingRows, config: Any, keep: Path | None = None) -> Proxy:
        """Fit on the training rows."""
