"""Checks of options and of the files that hold them, shared by all layers above."""

import math
import tomllib
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ssjf.errors import InputError, unknown

if TYPE_CHECKING:  # pydantic takes long to import
    from pydantic import BaseModel

Model = TypeVar("Model", bound="BaseModel")

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


STRICT: Any = {"extra": "forbid", "frozen": True, "strict": True, "allow_inf_nan": False}
"""``model_config`` of a pydantic model: no unknown key, no conversion (text is no number).

A field that is a tuple needs ``Field(strict=False)``, since TOML and JSON have only lists."""


def validated(model: type[Model], values: Mapping[str, Any], where: str | Path = "") -> Model:
    """Build a pydantic model from a table of a file or from options, which ``where`` names.

    InputError is one sentence that names the origin, the key, its value and what is allowed: what
    a field says in ``json_schema_extra={"allowed": …}``, or else its type and limits.
    """
    from pydantic import ValidationError

    try:
        return model.model_validate(dict(values))
    except ValidationError as failure:
        errors = failure.errors(include_url=False)
    misspelt = [error for error in errors if error["type"] == "extra_forbidden"]
    raise _sentence((misspelt or errors)[0], model.model_json_schema(), values, where) from None


def _sentence(error: Any, schema: dict[str, Any], values: Any, where: str | Path) -> InputError:
    """What is wrong and what is allowed, of one of the errors that pydantic lists."""
    loc, prefix = error["loc"], f"{where}: " if where else ""
    if error["type"] == "value_error":  # a check of the model's own, which says it all
        return InputError(f"{prefix}{error['ctx']['error']}")
    if error["type"] == "extra_forbidden":
        known = _within(schema, schema, loc[:-1]).get("properties", {})
        table = f"key of {'.'.join(map(str, loc[:-1]))}" if loc[:-1] else "key"
        origin = f"{' in' if loc[:-1] else ' of'} {where}:" if where else ""
        return unknown(f"{table}{origin}", loc[-1], known)
    if error["type"].startswith("union_tag"):
        return _wrong_tag(error, _within(schema, schema, loc), prefix)
    entries = [i for i, part in enumerate(loc) if isinstance(part, int)]
    loc = loc[: entries[0]] if entries else _of_the_data(loc, values)  # a list as a whole
    name, allowed = ".".join(map(str, loc)), _within(schema, schema, loc)
    if error["type"] == "missing":
        return InputError(f"{prefix}{name} is missing; it must be {_words(schema, allowed)}")
    value = values
    for part in loc:
        value = value[part] if isinstance(value, Mapping) and part in value else value
    if error["type"] == "literal_error" and not entries:
        return InputError(f"{prefix}{unknown(name, value, _choices(allowed))}")
    value = list(value) if isinstance(value, tuple) else value
    return InputError(f"{prefix}{name} is {value!r}; it must be {_words(schema, allowed)}")


def _of_the_data(loc: Sequence[Any], values: Any) -> Sequence[Any]:
    """A location without what pydantic appends to it: the member of a union that was tried."""
    for i, part in enumerate(loc):
        if not isinstance(values, Mapping):
            return loc[:i]
        values = values.get(part, values)
    return loc


def _wrong_tag(error: Any, schema: dict[str, Any], prefix: str) -> InputError:
    """The sentence for a table whose key does not say which member of a union it is."""
    key = f"{error['ctx']['discriminator'].strip(chr(39))} of {'.'.join(map(str, error['loc']))}"
    unions = [each for each in [schema, *schema.get("anyOf", ())] if "discriminator" in each]
    known = [*unions[0]["discriminator"]["mapping"]]
    if error["type"] == "union_tag_invalid":
        return InputError(f"{prefix}{unknown(key, error['ctx']['tag'], known)}")
    return InputError(f"{prefix}{key} is missing; it must be one of {', '.join(known)}")


def _within(root: dict[str, Any], schema: dict[str, Any], loc: Sequence[Any]) -> dict[str, Any]:
    """The part of a JSON schema that a location in the data is checked by; {} if it has none.

    A location may hold the tag of the chosen member of a union, which the data do not."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    if not loc:
        return schema
    key, *rest = loc
    if key in schema.get("properties", {}):
        return _within(root, schema["properties"][key], rest)
    tagged = schema.get("discriminator", {}).get("mapping", {})
    if key in tagged:
        return _within(root, {"$ref": tagged[key]}, rest)
    members = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    parts = [_within(root, member, loc) for member in members]
    inner = schema.get("additionalProperties")
    parts += [_within(root, inner, rest)] if isinstance(inner, dict) else []
    return next(filter(None, parts), {})


def _words(root: dict[str, Any], schema: dict[str, Any]) -> str:
    """What a JSON schema allows, in words."""
    if "allowed" in schema:
        return schema["allowed"]
    if _choices(schema):
        return f"one of {', '.join(_choices(schema))}"
    if "anyOf" in schema:
        members = [_within(root, member, ()) for member in schema["anyOf"]]
        return " or ".join(_words(root, each) for each in members if each.get("type") != "null")
    if schema.get("type") == "array":
        item = _words(root, _within(root, schema.get("items", {}), ()))
        many = item.removeprefix("a ").replace("number", "numbers")
        return f"at most {schema['maxItems']} {many}" if "maxItems" in schema else f"a list: {many}"
    kinds = {"boolean": "true or false", "string": "text", "object": "a table",
             "integer": "a whole number", "number": "a number"}  # fmt: skip
    return kinds.get(schema.get("type", ""), "another value") + _limits(schema)


def _choices(schema: dict[str, Any]) -> list[str]:
    return [
        str(each) for each in schema.get("enum", [schema["const"]] if "const" in schema else ())
    ]


def _limits(schema: dict[str, Any]) -> str:
    """The limits of a number: `` from 1 to 8``, `` of at least 1``, `` above 0``."""
    shown = {key: f"{value:g}" if isinstance(value, float) else value
             for key, value in schema.items() if key.lower().endswith("imum")}  # fmt: skip
    if {"minimum", "maximum"} <= shown.keys():
        return f" from {shown['minimum']} to {shown['maximum']}"
    words = {"minimum": "of at least", "exclusiveMinimum": "above", "maximum": "of at most",
             "exclusiveMaximum": "below"}  # fmt: skip
    return "".join(f" {words[key]} {value}" for key, value in shown.items())
