"""A trained proxy as a folder: ``proxy.json``, ``weights.safetensors`` and what its kind adds.

Every file is checked on loading.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ssjf.errors import InputError, unknown
from ssjf.proxy.base import Proxy
from ssjf.proxy.registry import KINDS

CARD, WEIGHTS = "proxy.json", "weights.safetensors"
BUILTIN = "builtin"
FORMAT = 1


def builtin_folder() -> Path:
    """Where the proxy that comes with the package lies."""
    return Path(str(resources.files("ssjf.proxy") / "builtin"))


def check_new(folder: Path) -> None:
    """InputError unless the folder can be made: it is not there, and what is above is."""
    if folder.exists() or folder.is_symlink():
        raise InputError(f"{folder} is there already; choose a folder that is not")
    above = next(path for path in folder.absolute().parents if path.exists())
    if not above.is_dir():
        raise InputError(f"cannot write to {folder}: {above} is not a folder")
    if not os.access(above, os.W_OK):
        raise InputError(f"cannot write to {folder}: {above} is not yours to write to")


def save(folder: Path, kind: str, proxy: Any, card: dict[str, Any]) -> Path:
    """Write a proxy, whole or not at all; an existing folder is refused.

    ``card`` says how it was made: data, configuration, quality. ``proxy.arrays()`` are the
    weights; ``proxy.files()``, where the kind has it, the other files by name. What a killed
    process left half-written beside the folder is removed.
    """
    from safetensors.numpy import save as packed

    check_new(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder.parent)
        own = f"{_half_written()}{os.getpid()}-"
        partial = Path(tempfile.mkdtemp(prefix=own, dir=folder.parent))
    except OSError as error:
        raise InputError(f"cannot write to {folder.parent}: {error.strerror}") from None
    try:
        arrays = {name: np.ascontiguousarray(a) for name, a in proxy.arrays().items()}
        data = packed(arrays)
        (partial / WEIGHTS).write_bytes(data)
        others = proxy.files() if hasattr(proxy, "files") else {}
        for name, content in others.items():
            (partial / name).write_bytes(content)
        checksums = {name: _sha256(content) for name, content in others.items()}
        entries = {"format": FORMAT, "kind": kind, "sha256": _sha256(data), "files": checksums}
        (partial / CARD).write_text(json.dumps(entries | card, indent=1) + "\n")
        partial.chmod(0o755)
        os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return folder


def _half_written() -> str:
    """How the name of a half-written folder begins; the process that writes it follows."""
    return f".tmp-{platform.node()}-"


def _sweep(above: Path) -> None:
    """Remove half-written folders of processes of this machine that are no more."""
    name = re.compile(re.escape(_half_written()) + r"(\d{1,9})-\w+")
    for path in above.glob(".tmp-*"):
        made = name.fullmatch(path.name)
        if made and not _alive(int(made[1])):
            shutil.rmtree(path, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


def load(name: str | Path) -> Proxy:
    """The proxy in a folder, or ``builtin``; a wrong or edited file is refused."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as unpacked

    folder = builtin_folder() if str(name) == BUILTIN else Path(name)
    entries = card(folder)
    if not isinstance(entries["kind"], str) or entries["kind"] not in KINDS:
        raise unknown(f"kind of proxy in {folder / CARD}:", entries["kind"], KINDS)
    weights = folder / WEIGHTS
    data = _checked(weights, entries["sha256"])
    for file, sha256 in entries.get("files", {}).items():
        _checked(folder / Path(file).name, sha256)
    try:
        kind = KINDS[entries["kind"]].proxy
        return kind.from_arrays(unpacked(data), entries | {"folder": folder})
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{weights} does not hold a {entries['kind']} proxy ({error})") from None


def _checked(file: Path, sha256: str) -> bytes:
    data = file.read_bytes() if file.is_file() else b""
    if _sha256(data) != sha256:
        raise InputError(f"{file} is missing or is not the file {CARD} was written for")
    return data


def card(name: str | Path) -> dict[str, Any]:
    """What ``proxy.json`` says; InputError where it is missing or not of this format."""
    folder = builtin_folder() if str(name) == BUILTIN else Path(name)
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
