"""Where everything lies, from the repository root, and where a result was made.

The root is ``$SSJF_ROOT`` or the nearest folder at or above the working directory that
holds ``papers/`` and ``notebooks/`` (JupyterLab starts in ``notebooks/``, papermill in the
root), else the working directory.
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
    """Everything the package writes; ``$SSJF_RESULTS`` moves it.

    Committed: figures, tables, claims.csv; not: executed, report, and the trained proxies.
    """
    return Path(os.environ.get("SSJF_RESULTS") or root() / "results")


def raw() -> Path:
    """Committed raw runs: parquet + spec.json + env.json per run; ``$SSJF_RAW`` moves them."""
    return Path(os.environ.get("SSJF_RAW") or results() / "raw")


def workloads() -> Path:
    """Committed draws of lengths and predictions (no text) that runs were made from.

    They stay in the repository when ``$SSJF_RESULTS`` moves what is written.
    """
    return Path(os.environ.get("SSJF_WORKLOADS") or root() / "results" / "workloads")


def notebooks() -> Path:
    """The notebooks, one per figure or table."""
    return root() / "notebooks"


def papers() -> Path:
    """Each paper as data."""
    return root() / "papers"


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
    """Where a run was made: commit, versions, hardware (of this process)."""
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
