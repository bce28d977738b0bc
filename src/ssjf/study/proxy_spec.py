"""What a proxy is trained to be, as a TOML file: kind, labels, also and config."""

from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from ssjf.errors import InputError, unknown
from ssjf.proxy.folder import KINDS
from ssjf.proxy.light_config import LightConfig
from ssjf.workload.options import read_toml

KEYS = ("kind", "labels", "also", "config")


@dataclass(frozen=True)
class ProxySpec:
    """A proxy as asked for: its kind, whose lengths it learns, and its configuration.

    ``labels`` are columns of lengths of one model's answers, several draws of the same;
    ``also`` are lengths of other models' answers. ``output_tokens`` is a column like others.
    """

    kind: str
    labels: tuple[str, ...]
    also: tuple[str, ...]
    config: LightConfig


def read_spec(name: str) -> ProxySpec:
    """A spec that comes with the package, by name, or a TOML file of one's own."""
    path = Path(name)
    if path.suffix != ".toml":
        path = Path(str(resources.files("ssjf.proxy") / "specs" / f"{name}.toml"))
        if not path.is_file():
            known = [p.stem for p in path.parent.glob("*.toml")]
            raise unknown("proxy spec", name, [*known, "a .toml file"])
    return _spec(path, read_toml("proxy spec", path))


def _spec(path: Path, given: dict[str, Any]) -> ProxySpec:
    for key in given:
        if key not in KEYS:
            raise unknown(f"key of {path}:", key, KEYS)
    kind, config = given.get("kind"), given.get("config", {})
    if not isinstance(kind, str) or kind not in KINDS:
        raise unknown(f"kind of proxy in {path}:", kind, KINDS)
    if not isinstance(config, dict):
        raise InputError(f"{path}: config is {config!r}; it must be a table")
    known = [field.name for field in fields(LightConfig)]
    for key in config:
        if key not in known:
            raise unknown(f"key of config in {path}:", key, known)
    labels = _names(path, "labels", given.get("labels", ["output_tokens"]))
    also = _names(path, "also", given.get("also", []))
    if not labels:
        raise InputError(f"{path}: labels is empty; at least one column of lengths is needed")
    try:
        return ProxySpec(kind, labels, also, LightConfig(**config))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _names(path: Path, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise InputError(f"{path}: {key} is {value!r}; it must be a list of names of columns")
    return tuple(value)
