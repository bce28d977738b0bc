"""Proxies that any other must beat: one length for all, and the prompt's size alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssjf.proxy.base import Prediction
from ssjf.proxy.conformal import LEVELS, Spread, tokens
from ssjf.request import FloatArray


def predicted(logs: FloatArray, edges: np.ndarray, residuals: np.ndarray) -> Prediction:
    """Predicted logarithms, shape (n,), as a prediction in tokens."""
    return Prediction(tokens(logs), Spread(edges, residuals).around(logs), LEVELS)


@dataclass(frozen=True)
class ConstantProxy:
    """The same for every prompt: it orders nothing.

    log: shape (1,), the predicted logarithm. edges, residuals: as in ``Spread``.
    """

    log: np.ndarray
    edges: np.ndarray
    residuals: np.ndarray

    def predict(self, prompts: Sequence[str], llms: Sequence[str] | None = None) -> Prediction:
        """The training rows' geometric mean length, and the quantiles of all lengths."""
        return predicted(np.full(len(prompts), self.log[0]), self.edges, self.residuals)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything that is stored, by name."""
        return dict(vars(self))

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], card: dict[str, Any]) -> "ConstantProxy":
        """The inverse of ``arrays``; ValueError for arrays that do not fit together."""
        return cls(**checked(arrays, log=(1,)))


@dataclass(frozen=True)
class PromptLengthProxy:
    """A monotone function of the prompt's size, linear between k knots.

    sizes: shape (k,), increasing, see ``sizes_of``. logs: shape (k,), the predicted logarithms,
    which never fall or never rise. edges, residuals: as in ``Spread``.
    """

    sizes: np.ndarray
    logs: np.ndarray
    edges: np.ndarray
    residuals: np.ndarray

    def predict(self, prompts: Sequence[str], llms: Sequence[str] | None = None) -> Prediction:
        """Lengths in tokens; a prompt smaller or larger than any known is as the nearest known."""
        logs = np.interp(sizes_of(prompts), self.sizes, self.logs)
        return predicted(logs, self.edges, self.residuals)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything that is stored, by name."""
        return dict(vars(self))

    @classmethod
    def from_arrays(
        cls, arrays: dict[str, np.ndarray], card: dict[str, Any]
    ) -> "PromptLengthProxy":
        """The inverse of ``arrays``; ValueError for arrays that do not fit together."""
        knots = arrays["sizes"].size
        proxy = cls(**checked(arrays, sizes=(knots,), logs=(knots,)))
        if not knots or (np.diff(proxy.sizes) <= 0).any():
            raise ValueError("sizes must be at least one number, and increase")
        return proxy


def sizes_of(prompts: Sequence[str]) -> FloatArray:
    """What size is: log(1 + characters), shape (n,)."""
    return np.log1p([float(len(prompt)) for prompt in prompts])


def checked(arrays: dict[str, np.ndarray], **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The arrays of these names and the spread's; ValueError for a wrong shape or number."""
    edges = arrays["edges"].size
    shapes |= {"edges": (edges,), "residuals": (edges + 1, len(LEVELS))}
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} is of shape {arrays[name].shape} instead of {shape}")
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name} holds what is not a finite number")
    return {name: arrays[name] for name in shapes}
