"""What a proxy is trained to be, as a TOML file: kind, labels, also, text and config."""

from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from ssjf.config import read_toml
from ssjf.errors import InputError, unknown
from ssjf.proxy.registry import KINDS

KEYS = ("kind", "labels", "also", "text", "config")
TEXTS = ("turn", "history")


@dataclass(frozen=True)
class ProxySpec:
    """A proxy as asked for: its kind, whose lengths it learns, and its configuration.

    ``labels`` are columns of lengths of one model's answers, several draws of the same;
    ``also`` are lengths of other models' answers. ``output_tokens`` is a column like others.
    ``text`` is what it reads: the ``turn`` alone, or the ``history`` of the conversation too.
    """

    kind: str
    labels: tuple[str, ...]
    also: tuple[str, ...]
    text: str
    config: Any


def read_spec(name: str) -> ProxySpec:
    """A spec that comes with the package, by name, or a TOML file of one's own."""
    path = Path(name)
    if path.suffix != ".toml":
        path = Path(str(resources.files("ssjf.proxy") / "specs" / f"{name}.toml"))
        if not path.is_file():
            known = [p.stem for p in path.parent.glob("*.toml")]
            raise unknown("proxy spec", name, [*known, "a .toml file"])
    return spec_of(read_toml("proxy spec", path), path)


def spec_of(given: dict[str, Any], path: str | Path) -> ProxySpec:
    """The spec that a table says; ``path`` is what complaints name."""
    for key in given:
        if key not in KEYS:
            raise unknown(f"key of {path}:", key, KEYS)
    kind, config = given.get("kind"), given.get("config", {})
    if not isinstance(kind, str) or kind not in KINDS:
        raise unknown(f"kind of proxy in {path}:", kind, KINDS)
    if not isinstance(config, dict):
        raise InputError(f"{path}: config is {config!r}; it must be a table")
    known = [field.name for field in fields(KINDS[kind].config)]
    for key in config:
        if key not in known:
            raise unknown(f"key of config in {path}:", key, known)
    labels = _names(path, "labels", given.get("labels", ["output_tokens"]))
    also = _names(path, "also", given.get("also", []))
    if not labels:
        raise InputError(f"{path}: labels is empty; at least one column of lengths is needed")
    text = given.get("text", TEXTS[0])
    if text not in TEXTS:
        raise unknown(f"text in {path}:", str(text), TEXTS)
    try:
        return ProxySpec(kind, labels, also, text, KINDS[kind].config(**config))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _names(path: str | Path, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise InputError(f"{path}: {key} is {value!r}; it must be a list of names of columns")
    return tuple(value)
