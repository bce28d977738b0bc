"""Policies by name (``ssjf``, ``ssjf-aged:2``) or as ``module:function``."""

import importlib
import math
import sys
from collections.abc import Callable
from pathlib import Path

from ssjf.errors import InputError, unknown
from ssjf.scheduler import alise, orderings
from ssjf.scheduler.base import OraclePolicy, Policy

DEFAULT_AGEING_TOKENS_PER_SECOND = 5.0
DEFAULT_BOUND_SECONDS_PER_TOKEN = 1.0

_FIXED = {
    "fcfs": Policy("fcfs", orderings.fcfs, "constant", uses_prediction=False),
    "sjf": OraclePolicy("sjf", orderings.shortest_predicted, "constant"),
    "ssjf": Policy("ssjf", orderings.shortest_predicted, "constant"),
    "hrrn": Policy("hrrn", orderings.response_ratio, "linear"),
    "srpt": alise.srpt(),
    "ssrpt": alise.ssrpt(),
}


def _aged(value: float) -> Policy:
    return Policy("ssjf-aged", orderings.aged(value), "constant")


def _bounded(value: float) -> Policy:
    bound = orderings.promoted_after(value)
    return Policy("ssjf-bounded", orderings.shortest_predicted, "constant", bound)


def _with_context(value: float) -> Policy:
    return alise.alise(value, context_growth=True)


_WITH_VALUE: dict[str, tuple[Callable[[float], Policy], float]] = {
    "ssjf-aged": (_aged, DEFAULT_AGEING_TOKENS_PER_SECOND),
    "ssjf-bounded": (_bounded, DEFAULT_BOUND_SECONDS_PER_TOKEN),
    "alise": (alise.alise, alise.DEFAULT_PROMOTION_SECONDS),
    "alise-context": (_with_context, alise.DEFAULT_PROMOTION_SECONDS),
}


def known_policies() -> tuple[str, ...]:
    """The names that ``policy`` takes, besides ``module:function``."""
    return (*_FIXED, *_WITH_VALUE)


def policy(name: str) -> Policy:
    """The policy of that name.

    ``ssjf-aged[:tokens_per_second]``, ``ssjf-bounded[:seconds_per_token]`` and
    ``alise[:promotion_seconds]`` (also ``alise-context``) take a number.
    ``module:function`` imports a function ``(queue, now) -> scores`` (the working directory is
    searched too); its attributes ``in_time``, ``promote_after`` and ``preempts``, if set, are
    those of ``Policy``. Unknown names raise, listing the known ones.
    """
    if name in _FIXED:
        return _FIXED[name]
    base, _, value = name.partition(":")
    if base in _WITH_VALUE:
        make, default = _WITH_VALUE[base]
        return make(_number(name, value) if value else default)
    if base and value and base not in _FIXED:
        return _imported(name, base, value)
    raise unknown("policy", name, [*known_policies(), "module:function"])


def _number(name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number < math.inf:
        raise InputError(f"policy {name!r}: {value!r} is not a finite number of at least 0")
    return number


def _imported(name: str, module: str, function: str) -> Policy:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        imported = importlib.import_module(module)
    except Exception as error:  # whatever a user's module does wrong when imported
        raise InputError(
            f"unknown policy {name!r}: module {module!r} cannot be imported "
            f"({type(error).__name__}: {error}); known: {', '.join(known_policies())}, "
            "module:function"
        ) from None
    score = getattr(imported, function, None)
    if isinstance(score, Policy):
        return score
    if not callable(score):
        raise InputError(f"policy {name!r}: {function!r} is no function of module {module!r}")
    return Policy(
        name,
        score,
        getattr(score, "in_time", "any"),
        getattr(score, "promote_after", None),
        preempts=bool(getattr(score, "preempts", False)),
    )
