"""Where a run or an artefact was made: commit, versions, hardware."""

import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from typing import Any

from ssjf import hardware
from ssjf.experiments import paths


def made_with() -> dict[str, Any]:
    """The commit of the repository (None where unknown), and versions."""
    commit = _git("rev-parse", "HEAD")
    # Results are what is being written: they must not make the code that writes them dirty.
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results")
    versions = {name: _version(name) for name in ("numpy", "matplotlib", "ssjf")}
    dirty = bool(changes) if commit else None
    return {"commit": commit, "dirty": dirty, "python": platform.python_version(), **versions}


@cache
def environment() -> dict[str, Any]:
    """Where a run was made: commit, versions, hardware (of this process: asked once)."""
    return made_with() | {
        "platform": platform.platform(),
        "processor": hardware.processor(),
        "instruction_sets": hardware.instruction_sets(),
        "cores": os.cpu_count(),
        "numba": _version("numba"),
        "pyarrow": _version("pyarrow"),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(paths.root()), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
