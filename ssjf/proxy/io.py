"""Kinds of proxies, specifications of proxies to train, and trained proxies as folders.

A folder holds ``proxy.json``, ``weights.safetensors`` and files of its kind, all checked on
loading. The modules of a kind are imported on first use, since some are heavy.
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from glob import escape
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from ssjf.config import STRICT, read_toml, validated
from ssjf.errors import InputError, unknown
from ssjf.files import whole_folder
from ssjf.proxy.base import Proxy

CARD, WEIGHTS = "proxy.json", "weights.safetensors"
BUILTIN = "builtin"
FORMAT = 1
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Kind:
    """The parts of a kind of proxy, each as ``module:name`` below ``ssjf.proxy``.

    The training function takes ``TrainingRows``, a configuration and a folder for checkpoints, from
    which a killed training resumes, or None.
    """

    config_at: str
    proxy_at: str
    train_at: str

    config = property(lambda self: _import(self.config_at), doc="The model of its options.")
    proxy = property(lambda self: _import(self.proxy_at), doc="The class of the trained proxy.")
    train = property(lambda self: _import(self.train_at), doc="The function that trains it.")


def _import(place: str) -> Any:
    module, name = place.split(":")
    return getattr(import_module(f"ssjf.proxy.{module}"), name)


def _baseline(proxy: str, train: str) -> Kind:
    return Kind("baselines:NoOptions", f"baselines:{proxy}", f"baselines:{train}")


KINDS = {
    "light": Kind("light.training:LightConfig", "light.proxy:LightProxy", "light.training:train"),
    "encoder": Kind(
        "encoder.heads:EncoderConfig", "encoder.proxy:EncoderProxy", "encoder.training:train"
    ),
    "retrieval": Kind("retrieval:RetrievalConfig", "retrieval:RetrievalProxy", "retrieval:train"),
    "refit": Kind("refit:RefitConfig", "refit:RefitProxy", "refit:train"),
    "tfidf-ridge": _baseline("TfidfRidgeProxy", "train_tfidf_ridge"),
    "prompt-length": _baseline("PromptLengthProxy", "train_prompt_length"),
    "constant": _baseline("PromptLengthProxy", "train_constant"),
}


class ProxySpec(BaseModel):
    """A proxy to train: its kind, the lengths it learns, and its options.

    labels: columns of lengths of one model's answers (several draws of the same). also: columns of
    lengths of other models' answers, which only help to learn. ``output_tokens`` is a column too.
    elsewhere: learn data sets of a mixture that lack the labels too (light proxies only), by their
    ``output_tokens``, which are on the labels' scale. text: the ``turn`` alone, or the ``history``
    of the conversation too. config: options of its kind.
    """

    model_config = STRICT

    kind: str
    labels: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = ("output_tokens",)
    also: Annotated[tuple[str, ...], Field(strict=False)] = ()
    elsewhere: bool = False
    text: Literal["turn", "history"] = "turn"
    config: Any = None


def read_spec(name: str) -> ProxySpec:
    """Read a specification, a built-in one by name or a TOML file."""
    if Path(name).suffix == ".toml":
        return spec_of(read_toml("proxy spec", Path(name)), name)
    path = _HERE / "specs.toml"
    named = read_toml("proxy spec", path)
    if name not in named:
        raise unknown("proxy spec", name, [*named, "a .toml file"])
    return spec_of(named[name], path)


def spec_of(table: dict[str, Any], path: str | Path) -> ProxySpec:
    """Check a table and make its specification; errors name ``path``."""
    kind, config = table.get("kind"), table.get("config", {})
    if not isinstance(kind, str) or kind not in KINDS:
        raise unknown(f"kind of proxy in {path}:", kind, KINDS)
    if not isinstance(config, dict):
        raise InputError(f"{path}: config is {config!r}; it must be a table")
    spec = validated(ProxySpec, table, path)
    if spec.elsewhere and kind != "light":
        raise InputError(f"{path}: elsewhere is for light proxies alone, and its kind is {kind}")
    options = validated(KINDS[kind].config, config, f"config in {path}")
    return spec.model_copy(update={"config": options})


def folder_of(name: str | Path) -> Path:
    """The folder of a proxy given by its path, or of the shipped one (``builtin``)."""
    return _HERE / BUILTIN if str(name) == BUILTIN else Path(name)


def check_new(folder: Path) -> None:
    """Raise InputError unless the folder does not exist and can be made."""
    if folder.exists() or folder.is_symlink():
        raise InputError(f"{folder} is there already; choose a folder that is not")
    above = next(path for path in folder.absolute().parents if path.exists())
    if not above.is_dir():
        raise InputError(f"cannot write to {folder}: {above} is not a folder")
    if not os.access(above, os.W_OK):
        raise InputError(f"cannot write to {folder}: {above} is not yours to write to")


def save(folder: Path, kind: str, proxy: Any, card: dict[str, Any]) -> Path:
    """Write a proxy, whole or not at all; an existing folder is refused.

    ``card`` says how it was made: data, configuration, quality. ``proxy.arrays()`` are the weights,
    ``proxy.files()`` (if its kind has it) the other files by name. Partial folders of killed
    processes are removed.
    """
    from safetensors.numpy import save as packed

    check_new(folder)
    for left in folder.parent.glob(f".tmp-????????-{escape(folder.name)}"):
        shutil.rmtree(left, ignore_errors=True)
    data = packed({name: np.ascontiguousarray(a) for name, a in proxy.arrays().items()})
    others = proxy.files() if hasattr(proxy, "files") else {}
    checksums = {name: _sha256(content) for name, content in others.items()}
    entries = {"format": FORMAT, "kind": kind, "sha256": _sha256(data), "files": checksums}
    text = json.dumps(entries | card, indent=1) + "\n"
    with whole_folder(folder) as partial:
        for name, content in {WEIGHTS: data, CARD: text.encode(), **others}.items():
            (partial / name).write_bytes(content)
    return folder


def load(name: str | Path) -> Proxy:
    """Load the proxy in a folder, or ``builtin``; wrong or edited files are refused."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as unpacked

    folder, entries = folder_of(name), card(name)
    if not isinstance(entries["kind"], str) or entries["kind"] not in KINDS:
        raise unknown(f"kind of proxy in {folder / CARD}:", entries["kind"], KINDS)
    weights = folder / WEIGHTS
    data = _checked(weights, entries["sha256"])
    for file, sha256 in entries.get("files", {}).items():
        _checked(folder / Path(file).name, sha256)
    try:
        kind = KINDS[entries["kind"]].proxy
        proxy = kind.from_arrays(unpacked(data), entries | {"folder": folder})
        if not np.isfinite(proxy.predict(["a"]).quantiles).all():
            raise ValueError("it predicts no length")
    except (SafetensorError, LookupError, ValueError, TypeError, OSError) as error:
        raise InputError(f"{weights} does not hold a {entries['kind']} proxy ({error})") from None
    return proxy


def _checked(file: Path, sha256: str) -> bytes:
    data = file.read_bytes() if file.is_file() else b""
    if _sha256(data) != sha256:
        raise InputError(f"{file} is missing or is not the file {CARD} was written for")
    return data


def card(name: str | Path) -> dict[str, Any]:
    """Read ``proxy.json``; InputError if it is missing or not of this format."""
    folder = folder_of(name)
    path = folder / CARD
    if not path.is_file():
        raise InputError(f"{folder} is no proxy: it has no {CARD} (a trained folder, or builtin)")
    try:
        entries = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    if not isinstance(entries, dict) or not {"format", "kind", "sha256"} <= entries.keys():
        raise InputError(f"{path} lacks format, kind or sha256: it was not written by ssjf train")
    if entries["format"] != FORMAT:
        raise InputError(f"{path} is of format {entries['format']}; this version reads {FORMAT}")
    return entries


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
