"""Length-aware order for a vLLM server, by ``--middleware ssjf.serving.Middleware``.

The name is loaded on first use: the command line needs no numpy to print its help.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name != "Middleware":
        raise AttributeError(f"module 'ssjf.serving' has no attribute {name!r}")
    from ssjf.serving.middleware import Middleware

    return Middleware
