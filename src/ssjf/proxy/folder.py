"""A trained proxy as a folder: ``proxy.json`` and ``weights.safetensors``, checked on loading."""

import hashlib
import json
import os
import shutil
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ssjf.errors import InputError, unknown
from ssjf.proxy.base import Proxy
from ssjf.proxy.light import LightProxy

CARD, WEIGHTS = "proxy.json", "weights.safetensors"
BUILTIN = "builtin"
KINDS = {"light": LightProxy}
FORMAT = 1


def builtin_folder() -> Path:
    """Where the proxy that comes with the package lies."""
    return Path(str(resources.files("ssjf.proxy") / "builtin"))


def save(folder: Path, kind: str, proxy: Any, card: dict[str, Any]) -> Path:
    """Write a proxy, whole or not at all; an existing folder is refused.

    ``card`` says how it was made: data, configuration, quality.
    """
    from safetensors.numpy import save_file

    if folder.exists():
        raise InputError(f"{folder} is there already; choose a folder that is not")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder.parent))
    except OSError as error:
        raise InputError(f"cannot write to {folder.parent}: {error.strerror}") from None
    try:
        arrays = {name: np.ascontiguousarray(a) for name, a in proxy.arrays().items()}
        save_file(arrays, str(partial / WEIGHTS))
        told = {"format": FORMAT, "kind": kind, "sha256": _sha256(partial / WEIGHTS)} | card
        (partial / CARD).write_text(json.dumps(told, indent=1) + "\n")
        partial.chmod(0o755)
        os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return folder


def load(name: str | Path) -> Proxy:
    """The proxy in a folder, or ``builtin``; a wrong or edited file is refused."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = builtin_folder() if str(name) == BUILTIN else Path(name)
    told = card(folder)
    if told["kind"] not in KINDS:
        raise unknown(f"kind of proxy in {folder / CARD}:", told["kind"], KINDS)
    weights = folder / WEIGHTS
    if not weights.is_file() or _sha256(weights) != told["sha256"]:
        raise InputError(f"{weights} is missing or is not the file {CARD} was written for")
    try:
        return KINDS[told["kind"]].from_arrays(load_file(str(weights)), told)
    except (SafetensorError, KeyError) as error:
        raise InputError(f"{weights} does not hold a {told['kind']} proxy ({error})") from None


def card(folder: Path) -> dict[str, Any]:
    """What ``proxy.json`` says; InputError where it is missing or not of this format."""
    path = folder / CARD
    if not path.is_file():
        raise InputError(f"{folder} is no proxy: it has no {CARD} (a trained folder, or builtin)")
    try:
        told = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    if not isinstance(told, dict) or not {"format", "kind", "sha256"} <= told.keys():
        raise InputError(f"{path} lacks format, kind or sha256: it was not written by ssjf train")
    if told["format"] != FORMAT:
        raise InputError(f"{path} is of format {told['format']}; this version reads {FORMAT}")
    return told


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
