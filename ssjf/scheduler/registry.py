"""Policies by name (``ssjf``, ``ssjf-aged:2``) or as ``module:function``."""

import importlib
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ssjf.errors import InputError, unknown
from ssjf.scheduler import alise, orderings, peers, tail
from ssjf.scheduler.base import OraclePolicy, Policy

_FIXED = {
    "fcfs": Policy("fcfs", orderings.fcfs, "constant", uses_prediction=False),
    "sjf": OraclePolicy("sjf", orderings.shortest_predicted, "constant"),
    "ssjf": Policy("ssjf", orderings.shortest_predicted, "constant"),
    "hrrn": Policy("hrrn", orderings.response_ratio, "linear"),
    "elis": peers.elis(),
    "sglang-hrrn": peers.prompt_ratio(),
    # Shortest remaining processing time (Schrage 1968), and the same by predictions
    "srpt": OraclePolicy("srpt", alise.Remaining(alise.TOKENS), preempts=True),
    "ssrpt": Policy("ssrpt", alise.Remaining(alise.TOKENS), preempts=True),
}


_WITH_NUMBERS: dict[str, tuple[Callable[..., Policy], *tuple[float, ...]]] = {
    "headstart": (tail.headstart, 10.0, math.inf),
    "headroom": (tail.headroom, 10.0, 0.5, 40.0, 1.0, 1000.0, 0.02, 8.0),
    "due": (tail.due, 3.0, 10.0, 40.0, 0.02),
    "tie": (peers.tie, 30 / math.log(1 / 0.9)),
    "gamma-boost": (peers.gamma_boost, 10.0, 0.02),
    "clairvoyant": (peers.clairvoyant, 15.0),
    "ltr": (peers.ltr, 30.0),
    "trail": (peers.trail, 0.8),
    "trail-first": (peers.trail_first, 0.8),
    "uniboost": (peers.uniboost, 10.0),
    "mlfq": (peers.mlfq, 32.0),
    "gittins": (peers.gittins, 0.5),
    "ssjf-aged": (orderings.aged, 5.0),
    "ssjf-bounded": (orderings.bounded, 1.0),
    "alise": (alise.alise, 10.0),
    "alise-context": (partial(alise.alise, context_growth=True), 10.0),
}
"""A function and the defaults of the numbers that a name may give it."""


def known_policies() -> tuple[str, ...]:
    """The names that ``policy`` takes, besides ``module:function``."""
    return (*_FIXED, *_WITH_NUMBERS)


def policy(name: str) -> Policy:
    """Return the policy of that name.

    ``ssjf-aged[:tokens_per_second]``, ``ssjf-bounded[:seconds_per_token]`` and others take numbers,
    separated by commas. ``module:function`` imports a function ``(queue, now) -> scores`` (from the
    working directory, too); its attributes ``in_time``, ``promote_after`` and ``preempts``, if set,
    are those of ``Policy``. Raises InputError for an unknown name, listing the known ones.
    """
    if name in _FIXED:
        return _FIXED[name]
    base, _, rest = name.partition(":")
    if base in _WITH_NUMBERS:
        make, *defaults = _WITH_NUMBERS[base]
        numbers = [_number(name, text) for text in rest.split(",")] if rest else []
        if len(numbers) > len(defaults):
            raise InputError(f"policy {name!r}: {base} takes at most {len(defaults)} numbers")
        return make(*numbers, *defaults[len(numbers) :])
    if base and rest and base not in _FIXED:
        return _imported(name, base, rest)
    raise unknown("policy", name, [*known_policies(), "module:function"])


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < math.inf:
        raise InputError(f"policy {name!r}: {text!r} is not a finite number of at least 0")
    return number


def _imported(name: str, module: str, function: str) -> Policy:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        imported = importlib.import_module(module)
    except Exception as error:  # a user's module may raise anything
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
