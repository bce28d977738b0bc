"""The kinds of proxy there are, and specifications of proxies to train.

The modules of a kind are imported when they are used: some are heavy.
"""

from dataclasses import dataclass
from importlib import import_module, resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from ssjf.config import STRICT, read_toml, validated
from ssjf.errors import InputError, unknown

NAMED = "specs.toml"


@dataclass(frozen=True)
class Kind:
    """Names of the parts of a kind, each as ``module:name`` below ``ssjf.proxy``."""

    config_at: str
    proxy_at: str
    train_at: str

    @property
    def config(self) -> Any:
        """The pydantic model of the options of its training."""
        return _import(self.config_at)

    @property
    def proxy(self) -> Any:
        """The class of the trained proxy."""
        return _import(self.proxy_at)

    @property
    def train(self) -> Any:
        """The function that trains it (see ``base.Train``)."""
        return _import(self.train_at)


def _import(place: str) -> Any:
    module, name = place.split(":")
    return getattr(import_module(f"ssjf.proxy.{module}"), name)


KINDS = {
    "light": Kind("light.training:LightConfig", "light.proxy:LightProxy", "light.training:train"),
    "encoder": Kind(
        "encoder.config:EncoderConfig", "encoder.proxy:EncoderProxy", "encoder.training:train"
    ),
    "retrieval": Kind(
        "retrieval.vectors:RetrievalConfig",
        "retrieval.proxy:RetrievalProxy",
        "retrieval.training:train",
    ),
} | {
    name: Kind(f"baselines:{cls}Config", f"baselines:{cls}Proxy", f"baselines:train_{function}")
    for name, cls, function in (
        ("tfidf-ridge", "TfidfRidge", "tfidf_ridge"),
        ("prompt-length", "PromptLength", "prompt_length"),
        ("constant", "Constant", "constant"),
    )
}


def _names(least: int) -> Any:
    allowed = f"a list of names of columns{', at least one' if least else ''}"
    return Field(strict=False, min_length=least, json_schema_extra={"allowed": allowed})


class ProxySpec(BaseModel):
    """A proxy to train: its kind, the lengths it learns, and its options.

    labels: columns of lengths of one model's answers, several draws of the same. also: lengths
    of other models' answers, which only help to learn. ``output_tokens`` is a column like others.
    text: the ``turn`` alone, or the ``history`` of the conversation too. config: of its kind.
    """

    model_config = STRICT

    kind: str
    labels: Annotated[tuple[str, ...], _names(1)] = ("output_tokens",)
    also: Annotated[tuple[str, ...], _names(0)] = ()
    text: Literal["turn", "history"] = "turn"
    config: Any = None


def read_spec(name: str) -> ProxySpec:
    """Read a specification: one of the package's by name, or a TOML file of one's own.

    Raises
    ------
    InputError: for a name that is not known and whatever is wrong with a file.
    """
    if Path(name).suffix == ".toml":
        return spec_of(read_toml("proxy spec", Path(name)), name)
    path = Path(str(resources.files("ssjf.proxy") / NAMED))
    named = read_toml("proxy spec", path)
    if name not in named:
        raise unknown("proxy spec", name, [*named, "a .toml file"])
    return spec_of(named[name], path)


def spec_of(table: dict[str, Any], path: str | Path) -> ProxySpec:
    """The specification of a table; ``path`` is its origin, which errors name."""
    kind, config = table.get("kind"), table.get("config", {})
    if not isinstance(kind, str) or kind not in KINDS:
        raise unknown(f"kind of proxy in {path}:", kind, KINDS)
    if not isinstance(config, dict):
        raise InputError(f"{path}: config is {config!r}; it must be a table")
    spec = validated(ProxySpec, table, path)
    options = validated(KINDS[kind].config, config, f"config in {path}")
    return spec.model_copy(update={"config": options})
