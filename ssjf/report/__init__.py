"""What notebooks draw with, the verdicts on claims, and the pages; reads raw runs, makes none.

    >>> from ssjf import report
    >>> book = report.Notebook("rate_sweep", modes=modes, series=series)
    >>> book.save(fig, "rate_sweep", caption="…", protocol="published", runs=runs)

Names are loaded on first use.
"""

from importlib import import_module
from typing import Any

_NAMES = {
    "analysis.estimates": ["with_interval"],
    "report.figures": ["Notebook"],
    "report.tables": ["gains", "machines", "quality"],
    "report.claims": ["runs_of"],
    "report.style": ["look", "looks"],
    "report.drawing": [
        *("DOTS", "INTERVAL", "MODES", "authors", "basis", "depths", "finish", "gantt"),
        *("key", "long", "named", "points"),
    ],
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ssjf.report' has no attribute {name!r}")
    return getattr(import_module(f"ssjf.{_HOMES[name]}"), name)
