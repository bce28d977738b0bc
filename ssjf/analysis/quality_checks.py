"""Checks of what quality is measured on: an InputError says in one sentence what is wrong."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ssjf.errors import InputError
from ssjf.request import FloatArray


def columns(**given: ArrayLike) -> list[FloatArray]:
    """The given columns as floats, all (n,) of finite numbers with n > 0, or an InputError."""
    n = np.size(next(iter(given.values())))
    arrays = [one_each(name, column, n).astype(np.float64) for name, column in given.items()]
    for name, array in zip(given, arrays, strict=True):
        bad = int((~np.isfinite(array)).sum())
        if bad:
            raise InputError(f"{name} holds {bad} values of {n} that are not finite numbers")
    return arrays


def one_each(name: str, column: ArrayLike, n: int) -> NDArray:
    """The column, of shape (n,) with n > 0, or an InputError."""
    array = np.asarray(column)
    if n == 0:
        raise InputError(f"{name} is empty; quality needs at least one request")
    if array.shape != (n,):
        raise InputError(f"{name} must be {n} values, one per request, not of shape {array.shape}")
    return array


def increasing(name: str, values: ArrayLike, at_least: int = 1) -> FloatArray:
    """The values, shape (k,) with k >= ``at_least``, strictly increasing, or an InputError."""
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or len(array) < at_least or not (np.diff(array) > 0).all():
        raise InputError(
            f"{name} must be at least {at_least} numbers that increase, not {array.tolist()}"
        )
    return array


def banded(truth: FloatArray, edges: ArrayLike) -> Iterator[tuple[dict[str, float], NDArray]]:
    """Each band, as the columns from_tokens and below_tokens, and the mask of its requests."""
    for low, high in pairwise(increasing("edges", edges, 2).tolist()):
        yield {"from_tokens": low, "below_tokens": high}, (low <= truth) & (truth < high)


def above_zero(lengths: FloatArray, name: str = "truth") -> None:
    """An InputError unless all lengths are above 0."""
    bad = int((lengths <= 0).sum())
    if bad:
        raise InputError(
            f"{name} holds {bad} lengths of {len(lengths)} that are not above 0 tokens"
        )
