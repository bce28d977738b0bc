"""Checks of numeric options, shared by the arrival processes and the length models."""

import math
from numbers import Integral, Real
from typing import Any

from ssjf.errors import InputError


def positive(option: str, value: Any) -> float:
    """The value as a float; raises InputError unless it is a finite number above 0."""
    if not _is_number(value) or value <= 0:
        raise InputError(f"{option} is {value!r}; it must be a finite number above 0")
    return float(value)


def count(option: str, value: Any) -> int:
    """The value as an int; raises InputError unless it is a whole number of at least 1."""
    if not _is_number(value) or not isinstance(value, Integral) or value < 1:
        raise InputError(f"{option} is {value!r}; it must be a whole number of at least 1")
    return int(value)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
