"""Policies by name (``ssjf``, ``ssjf-aged:2``) or as ``module:function``."""

import importlib
import math
import sys
from collections.abc import Callable
from pathlib import Path

from ssjf.errors import InputError, unknown
from ssjf.scheduler import alise, orderings, peers, tail
from ssjf.scheduler.base import OraclePolicy, Policy

DEFAULT_AGEING_TOKENS_PER_SECOND = 5.0
DEFAULT_BOUND_SECONDS_PER_TOKEN = 1.0
DEFAULT_HEADSTART_SECONDS = 10.0

_FIXED = {
    "fcfs": Policy("fcfs", orderings.fcfs, "constant", uses_prediction=False),
    "sjf": OraclePolicy("sjf", orderings.shortest_predicted, "constant"),
    "ssjf": Policy("ssjf", orderings.shortest_predicted, "constant"),
    "hrrn": Policy("hrrn", orderings.response_ratio, "linear"),
    "elis": peers.elis(),
    "sglang-hrrn": peers.prompt_ratio(),
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


_WITH_VALUE: dict[str, tuple[Callable[..., Policy], *tuple[float, ...]]] = {
    "headstart": (tail.headstart, DEFAULT_HEADSTART_SECONDS, math.inf),
    "headroom": (
        tail.headroom,
        DEFAULT_HEADSTART_SECONDS,
        0.5,
        4 * DEFAULT_HEADSTART_SECONDS,
        1.0,
        1000.0,
        0.02,
        8.0,
    ),
    "due": (tail.due, 3.0, DEFAULT_HEADSTART_SECONDS, 4 * DEFAULT_HEADSTART_SECONDS, 0.02),
    "tie": (peers.tie, peers.TIE_SECONDS),
    "gamma-boost": (peers.gamma_boost, DEFAULT_HEADSTART_SECONDS, 0.02),
    "clairvoyant": (peers.clairvoyant, peers.CLAIRVOYANT_SECONDS),
    "ltr": (peers.ltr, peers.LTR_SECONDS),
    "trail": (peers.trail, 0.8),
    "trail-first": (peers.trail_first, 0.8),
    "uniboost": (peers.uniboost, 10.0),
    "mlfq": (peers.mlfq, peers.QUANTUM_TOKENS),
    "gittins": (peers.gittins, 0.5),
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
        make, *defaults = _WITH_VALUE[base]
        given = [_number(name, each) for each in value.split(",")] if value else []
        if len(given) > len(defaults):
            raise InputError(f"policy {name!r}: {base} takes at most {len(defaults)} numbers")
        return make(*given, *defaults[len(given) :])
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
