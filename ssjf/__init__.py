"""Length-aware scheduling for LLM serving: exact simulation and honest measurement.

    >>> from ssjf import Requests, Server, profile, simulate
    >>> from ssjf.scheduler import policy

Names are loaded on first use, so that ``import ssjf`` stays cheap.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "Completions": "request",
    "InputError": "errors",
    "OraclePolicy": "scheduler",
    "Policy": "scheduler",
    "Profile": "simulator.profile",
    "Queue": "scheduler",
    "Requests": "request",
    "Server": "simulator.server",
    "load_trace": "workload.traces",
    "predict": "proxy",
    "profile": "simulator.profile",
    "simulate": "simulator.simulate",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'ssjf' has no attribute {name!r}")
    return getattr(import_module(f"ssjf.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
