"""Length-aware order for a vLLM server, by ``--middleware ssjf.serving.Middleware``.

Names are loaded on first use: the command line needs no numpy to print its help.
"""

from importlib import import_module
from typing import Any

_HOMES = {"Middleware": "middleware", "ServeOptions": "options"}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ssjf.serving' has no attribute {name!r}")
    return getattr(import_module(f"ssjf.serving.{_HOMES[name]}"), name)
