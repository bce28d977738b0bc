"""Checks of what is chosen of a proxy's training, the same for every kind."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from ssjf.errors import InputError, unknown

Limits = Mapping[str, tuple[float, float]]
MOST_LAYERS, WIDEST_LAYER = 8, 8192
_WORDS = {bool: "true or false", str: "text", tuple: "a list"}


def check(config: Any, limits: Limits, choices: Mapping[str, Sequence[str]] | None = None) -> None:
    """InputError unless every field of a configuration can be.

    A field in ``choices`` must be one of them, one in ``limits`` a number from the lower to the
    upper (a whole one if its default is), any other of the type of its default and no empty text.
    """
    for field in fields(config):
        value = getattr(config, field.name)
        if choices and field.name in choices:
            if value not in choices[field.name]:
                raise unknown(field.name, str(value), choices[field.name])
        elif field.name in limits:
            _check_number(field.name, value, field.default, *limits[field.name])
        elif type(value) is not type(field.default) or value == "":
            words = _WORDS[type(field.default)]
            raise InputError(f"{field.name} is {value!r}; it must be {words}")


def _check_number(name: str, value: Any, default: Any, low: float, high: float) -> None:
    kinds = (int, float) if isinstance(default, float) else (int,)
    if type(value) not in kinds or not low <= value <= high:
        number = "number" if float in kinds else "whole number"
        raise InputError(f"{name} is {value!r}; it must be a {number} from {low} to {high}")


def check_sizes(name: str, sizes: tuple[Any, ...]) -> None:
    """InputError unless layers can be of these sizes."""
    whole = all(type(size) is int and 1 <= size <= WIDEST_LAYER for size in sizes)
    if len(sizes) > MOST_LAYERS or not whole:
        raise InputError(
            f"{name} is {list(sizes)}; it must be at most {MOST_LAYERS} whole numbers from 1 to "
            f"{WIDEST_LAYER}"
        )
