"""Where everything lies: all paths of the project in one place, from the repository root.

The root is ``$SSJF_ROOT`` or the nearest folder at or above the working directory that
holds ``papers/`` and ``notebooks/`` (JupyterLab starts in ``notebooks/``, papermill in the
root), else the working directory.
"""

import os
from pathlib import Path


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
    """Everything the package writes; ``$SSJF_RESULTS`` moves it."""
    return Path(os.environ.get("SSJF_RESULTS") or root() / "results")


def raw() -> Path:
    """Committed raw runs: parquet + spec.json + env.json per run; ``$SSJF_RAW`` moves them."""
    return Path(os.environ.get("SSJF_RAW") or results() / "raw")


def workloads() -> Path:
    """Committed draws of lengths and predictions (no text) that runs were made from.

    They stay in the repository when ``$SSJF_RESULTS`` moves what is written.
    """
    return Path(os.environ.get("SSJF_WORKLOADS") or root() / "results" / "workloads")


def proxies() -> Path:
    """Trained proxies (not committed: an encoder takes a hundred megabytes)."""
    return results() / "proxies"


def figures() -> Path:
    """Figures as pdf, svg, png and a json sidecar."""
    return results() / "figures"


def tables() -> Path:
    """Tables as csv and markdown."""
    return results() / "tables"


def executed() -> Path:
    """Executed notebooks (not committed)."""
    return results() / "executed"


def report() -> Path:
    """The HTML report (not committed)."""
    return results() / "report"


def claims_csv() -> Path:
    """The verdicts."""
    return results() / "claims.csv"


def notebooks() -> Path:
    """The notebooks, one per figure or table."""
    return root() / "notebooks"


def papers() -> Path:
    """Each paper as data."""
    return root() / "papers"
