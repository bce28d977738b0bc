"""Checks of options and of the TOML files that hold them, shared by all layers above."""

import math
import tomllib
from collections.abc import Iterable, Mapping
from functools import wraps
from inspect import signature
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

from ssjf.errors import InputError, unknown

if TYPE_CHECKING:  # pydantic takes long to import
    from pydantic import BaseModel

Model = TypeVar("Model", bound="BaseModel")
Plain = TypeVar("Plain")

SERVE_PREFIX = "SSJF_SERVE_"
"""Prefix of the environment variables that carry options of ``ssjf serve`` to the server."""


PLAIN_WORDS = {
    "Input should": "it must", "String should": "it must", "Tuple should": "it must",
    "List should": "it must", "greater than or equal to": "at least", "greater than": "above",
    "less than or equal to": "at most", "less than": "below", "a valid integer": "a whole number",
    "a valid number": "a number", "a valid string": "text", "a valid boolean": "true or false",
    "a valid dictionary": "a table", " after validation": "",
}  # fmt: skip


def positive(option: str, value: Any) -> float:
    """Return the value as a float; InputError unless it is a finite number above 0."""
    if not _is_number(value) or value <= 0:
        raise InputError(f"{option} is {value!r}; it must be a finite number above 0")
    return float(value)


def count(option: str, value: Any) -> int:
    """Return the value as an int; InputError unless it is a whole number of at least 1."""
    if not _is_number(value) or not isinstance(value, Integral) or value < 1:
        raise InputError(f"{option} is {value!r}; it must be a whole number of at least 1")
    return int(value)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def read_toml(what: str, path: Path) -> dict[str, Any]:
    """Read a TOML file; ``what`` names the kind of file in an error."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{what} file {path} is not TOML: {error}") from None
    except FileNotFoundError:
        raise InputError(f"{what} file {path} does not exist") from None
    except OSError as error:
        raise InputError(f"{what} file {path} cannot be read ({error.strerror})") from None


STRICT: Any = {"extra": "forbid", "frozen": True, "strict": True, "allow_inf_nan": False}
"""``model_config`` of a pydantic model: no unknown key, no conversion (text is no number).

A field that is a tuple needs ``Field(strict=False)``, since TOML and JSON have only lists."""


def validated(model: type[Model], values: Mapping[str, Any], where: str | Path = "") -> Model:
    """Build a pydantic model from a table of a file or from options, which ``where`` names.

    Raises InputError, one sentence that names the origin, the key, its value and what is allowed.
    """
    from pydantic import ValidationError

    try:
        return model.model_validate(dict(values))
    except ValidationError as failure:
        raise _sentence(failure, model.model_fields, where) from None


@dataclass_transform(frozen_default=True)
def checked(plain: type[Plain]) -> type[Plain]:
    """Make a frozen dataclass whose fields pydantic checks; raises InputError as ``validated``."""
    from pydantic import ValidationError
    from pydantic.dataclasses import dataclass

    made: Any = dataclass(frozen=True, config={"strict": True, "extra": "forbid"})(plain)
    build, names = made.__init__, [*signature(made).parameters]

    @wraps(build)
    def checking(self: Any, *arguments: Any, **values: Any) -> None:
        given = dict(zip(names[: len(arguments)], arguments, strict=True)) | values
        try:  # numpy's numbers as Python's, which they stand for
            build(self, **{name: getattr(v, "item", lambda v=v: v)() for name, v in given.items()})
        except ValidationError as failure:
            raise _sentence(failure, names) from None

    made.__init__ = checking
    return made


def _sentence(failure: Any, known: Iterable[str], where: str | Path = "") -> InputError:
    """Turn one of pydantic's errors into a sentence: what is wrong and what is allowed."""
    errors = failure.errors(include_url=False)
    unknown_keys = ("extra_forbidden", "unexpected_keyword_argument")
    error = next((each for each in errors if each["type"] in unknown_keys), errors[0])
    prefix, loc = f"{where}: " if where else "", error["loc"]
    if error["type"] == "value_error":  # a check of the model's own, which says it all
        return InputError(f"{prefix}{error['ctx']['error']}")
    if error["type"] in unknown_keys and len(loc) == 1:
        return unknown(f"key{where and f' of {where}:'}", loc[0], known)
    if error["loc"][-1] in ("int", "float"):  # of a union of both: the wider one was tried last
        error, loc = errors[1], loc[:-1]
    name, said = ".".join(map(str, loc)), error["msg"]
    if error["type"] in unknown_keys:
        return InputError(f"{prefix}unknown key {name}")
    if error["type"] == "missing":
        return InputError(f"{prefix}{name} is missing")
    for pydantics, plain in PLAIN_WORDS.items():
        said = said.replace(pydantics, plain)
    return InputError(f"{prefix}{name} is {error['input']!r}; {said}")
