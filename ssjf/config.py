"""Checks of options and of the files that hold them, shared by all layers above."""

import math
import tomllib
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from ssjf.errors import InputError

SERVE_PREFIX = "SSJF_SERVE_"
"""Of the variables that carry the options of ``ssjf serve`` into the server's process."""


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


def read_toml(what: str, path: Path) -> dict[str, Any]:
    """The contents of a TOML file; ``what`` says in an error what the file should have been."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{what} file {path} is not TOML: {error}") from None
    except FileNotFoundError:
        raise InputError(f"{what} file {path} does not exist") from None
    except OSError as error:
        raise InputError(f"{what} file {path} cannot be read ({error.strerror})") from None
