"""The interface of proxy models: from prompts to predicted output lengths; their training data.

A proxy that predicts one number gets a distribution from its residuals on the validation rows, by
split conformal prediction, Mondrian by predicted length (Vovk et al. 2005, section 4.5).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from ssjf.request import FloatArray

LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
LEAST_OF_BAND = 30  # validation rows per band of residuals
LONGEST_TOKENS = 1e6
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Prediction:
    """Predicted output lengths of n prompts, in tokens.

    ``tokens`` has shape (n,). ``quantiles`` has shape (n, k), one column per entry of
    ``levels``, not decreasing along a row.
    """

    tokens: FloatArray
    quantiles: FloatArray
    levels: tuple[float, ...] = LEVELS

    @classmethod
    def of(cls, logs: FloatArray, quantiles: FloatArray) -> Self:
        """Make a prediction from logarithms of lengths, with quantiles in tokens."""
        return cls(np.clip(np.exp(logs), 1, LONGEST_TOKENS), quantiles)


NO_PREDICTION = Prediction(np.zeros(0), np.zeros((0, len(LEVELS))))


class Proxy(Protocol):
    """A trained proxy model.

    For ``io`` it also has ``arrays()`` to store, optionally ``files()`` to store beside them and
    ``metadata()`` for its card, and the inverse of these, ``from_arrays(arrays, card)``.
    """

    def predict(self, prompts: Sequence[str]) -> Prediction:
        """Predict the output length of each prompt."""


@dataclass(frozen=True)
class TrainingRows:
    """n prompts with logarithms of lengths; rows in neither mask are ignored.

    targets: shape (n, s), NaN where unknown. The first column is predicted (the mean, if there are
        several draws of an answer); the others, such as lengths of another LLM's answers, only
        help to learn.
    draws: shape (n, m), logarithms of the lengths of single answers.
    train, validation: masks of shape (n,). Validation rows are used only for early stopping and
        to calibrate the distribution.
    cut_off: mask of answers that ended at a limit, shape (n,), if known.
    """

    prompts: Sequence[str]
    targets: FloatArray
    draws: FloatArray
    train: np.ndarray
    validation: np.ndarray
    cut_off: np.ndarray | None = None

    def known(self, mask: np.ndarray) -> np.ndarray:
        """The indices of the rows of a mask whose first target is known."""
        return np.flatnonzero(mask & ~np.isnan(self.targets[:, 0]))

    def prompts_of(self, rows: np.ndarray) -> list[str]:
        """The prompts of rows given by index."""
        return [self.prompts[i] for i in rows]


class Part:
    """A dataclass of arrays that are stored under the name of the part."""

    def stored(self, name: str) -> Arrays:
        """Its arrays by ``name.field``."""
        return {f"{name}.{field}": array for field, array in vars(self).items()}

    @classmethod
    def restored(cls, name: str, arrays: Arrays) -> Self:
        """The inverse of ``stored``."""
        return cls(**{field: arrays[f"{name}.{field}"] for field in cls.__annotations__})


@dataclass(frozen=True)
class ResidualQuantiles(Part):
    """Quantiles of true minus predicted logarithm in each of k bands of predicted logarithm.

    edges: shape (k - 1,), between bands. residuals: shape (k, levels).
    """

    edges: np.ndarray
    residuals: np.ndarray

    def quantiles(self, logs: FloatArray, levels: FloatArray | None = None) -> FloatArray:
        """Quantiles in tokens, shape (n, levels), around predicted logarithms of shape (n,).

        ``levels`` (n, levels) are logarithms of quantiles that the proxy itself predicts; by
        default its one number counts for every level.
        """
        base = logs[:, None] if levels is None else levels
        quantiles = np.exp(base + self.residuals[np.searchsorted(self.edges, logs)])
        return np.clip(np.maximum.accumulate(quantiles, axis=1), 1, LONGEST_TOKENS)


NO_RESIDUALS = ResidualQuantiles(np.zeros(0), np.zeros((1, len(LEVELS))))


def fit_residuals(
    logs: FloatArray, draws: FloatArray, bands: int, levels: FloatArray | None = None
) -> ResidualQuantiles:
    """Fit residual quantiles on validation rows, with fewer bands if there are few rows.

    logs: predicted logarithms, shape (n,). draws: true ones, (n, m), NaN where unknown. levels:
    predicted quantiles, (n, levels), for residuals of these (conformalised quantile regression:
    Romano et al. 2019).
    """
    bands = min(bands, max(1, len(logs) // LEAST_OF_BAND))
    edges = np.quantile(logs, np.arange(1, bands) / bands)
    band = np.searchsorted(edges, logs)
    base = np.repeat(logs[:, None], len(LEVELS), axis=1) if levels is None else levels
    # With many equal predictions a band may be empty: it gets the residuals of all rows.
    parts = [band == k if (band == k).any() else slice(None) for k in range(bands)]
    residuals = [
        [np.nanquantile(draws[rows] - base[rows, i : i + 1], q) for i, q in enumerate(LEVELS)]
        for rows in parts
    ]
    return ResidualQuantiles(edges, np.array(residuals))


@dataclass(frozen=True)
class LogProxy(ResidualQuantiles, ABC):
    """A proxy that predicts one number, the logarithm of the length, and has residuals."""

    @abstractmethod
    def predicted_logs(self, prompts: Sequence[str]) -> FloatArray:
        """Predicted logarithms, shape (n,)."""

    def predict(self, prompts: Sequence[str]) -> Prediction:
        """Lengths in tokens, the exp of the predicted logarithm, and quantiles."""
        logs = self.predicted_logs(prompts)
        return Prediction.of(logs, self.quantiles(logs))

    def arrays(self) -> Arrays:
        return {name: a for name, a in vars(self).items() if isinstance(a, np.ndarray)}

    @classmethod
    def from_arrays(cls, arrays: Arrays, card: dict[str, Any]) -> Self:
        return cls(**arrays)
