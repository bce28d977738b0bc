"""Paths below the repository root, and the provenance of results.

The root is ``$SSJF_ROOT`` or the nearest folder at or above the working directory that
contains ``papers/`` and ``notebooks/`` (JupyterLab starts in ``notebooks/``, papermill in the
root), or else the working directory.
"""

import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from ssjf import hardware


def root() -> Path:
    """The repository root (see the module docstring)."""
    if chosen := os.environ.get("SSJF_ROOT"):
        return Path(chosen)
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "papers").is_dir() and (folder / "notebooks").is_dir():
            return folder
    return here


def results() -> Path:
    """Folder of everything the package writes, or ``$SSJF_RESULTS``.

    Figures, tables and claims.csv are committed; executed, report and trained proxies are not.
    """
    return Path(os.environ.get("SSJF_RESULTS") or root() / "results")


def raw() -> Path:
    """Folder of the raw runs, each parquet + spec.json + env.json, or ``$SSJF_RAW``."""
    return Path(os.environ.get("SSJF_RAW") or results() / "raw")


def workloads() -> Path:
    """Folder of the committed draws of lengths and predictions that runs were made from.

    ``$SSJF_RESULTS`` does not move it.
    """
    return Path(os.environ.get("SSJF_WORKLOADS") or root() / "results" / "workloads")


def notebooks() -> Path:
    """Folder of the notebooks."""
    return root() / "notebooks"


def papers() -> Path:
    """Folder of the papers' claims."""
    return root() / "papers"


def made_with() -> dict[str, Any]:
    """The commit of the repository (None if unknown) and versions."""
    commit = _git("rev-parse", "HEAD")
    # Results are being written now: they must not make the code count as dirty.
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results")
    versions = {name: _version(name) for name in ("numpy", "matplotlib", "ssjf")}
    dirty = bool(changes) if commit else None
    return {"commit": commit, "dirty": dirty, "python": platform.python_version(), **versions}


@cache
def environment() -> dict[str, Any]:
    """The environment of a run in this process: commit, versions, hardware."""
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
        command = ["git", "-C", str(root()), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
