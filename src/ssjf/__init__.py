"""Length-aware scheduling for LLM serving: exact simulation and honest measurement.

    >>> from ssjf import Requests, Server, profile, simulate
    >>> from ssjf.policy import policy

Names are loaded on first use, so that ``import ssjf`` stays cheap.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "Completion": "request",
    "Completions": "request",
    "InputError": "errors",
    "OraclePolicy": "policy",
    "Policy": "policy",
    "Profile": "engine.profile",
    "Queue": "policy",
    "Request": "request",
    "Requests": "request",
    "Server": "engine.server",
    "load_trace": "workload.traces",
    "predict": "proxy",
    "profile": "engine.profile",
    "simulate": "engine.simulator",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'ssjf' has no attribute {name!r}")
    return getattr(import_module(f"ssjf.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
