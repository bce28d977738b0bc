"""Experiments: typed specifications, the runner, the store of raw runs.

    >>> from ssjf import experiments
    >>> runs = experiments.rows("rate-sweep")

Names are loaded on first use.
"""

from importlib import import_module
from typing import Any

_HOMES = {"experiment": "grid", "experiments": "grid", "rows": "grid", "run": "runner"}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ssjf.experiments' has no attribute {name!r}")
    return getattr(import_module(f"ssjf.experiments.{_HOMES[name]}"), name)
