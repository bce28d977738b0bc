"""Which replica gets a request: a score per replica, lowest first, from what a router knows.

A score is a function of one replica as the router sees it, in numbers, and is compiled. Of equal
scores the first after the replica chosen last wins, so a score that says nothing is a round robin.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from ssjf.errors import InputError, unknown

SEEN = {
    "nothing": ("replica", "replicas", "slots", "step_seconds", "prompt_tokens",
                "predicted_tokens", "draw", "lot"),
    "counts": ("running", "waiting"),
    "lengths": ("work_tokens", "kv_tokens", "queued_tokens", "queued_prompt_tokens"),
    "starts": ("start_tokens",),
}  # fmt: skip
"""What a router may see of a replica, by how much it looks at; each sees the lines above, too.

``step_seconds``: of a step with all slots in use, without context. ``prompt_tokens``,
``predicted_tokens``: of the request that comes. ``draw``: a number between 0 and 1, drawn anew for
each request and replica, or for each prefix and replica; ``lot``: how many replicas that are up
have a lower one, counted to two.

``work_tokens``: predicted tokens that are still to come of all requests in flight, at least one
each; ``kv_tokens``: what these will hold at their end; ``queued_tokens``: the work of those that
wait; ``queued_prompt_tokens``: their prompts.
``start_tokens``: steps until the request has a slot, if what goes before it there is poured evenly
over the slots and each request ends as predicted."""
Sees = Literal["nothing", "counts", "lengths", "starts"]


@dataclass(frozen=True)
class Router:
    """Chooses a replica for each request as it comes.

    Parameters
    ----------
    name: how tables and figures call it.
    score: ``(seen) -> float`` with the fields of ``SEEN`` as attributes, of arithmetic alone.
    sees: how much of ``SEEN`` it reads.
    uses_prediction: does it read predicted lengths?
    by_prefix: are draws those of the request's prefix?
    """

    name: str
    score: Callable[[Any], float]
    sees: Sees = "counts"
    uses_prediction: bool = False
    by_prefix: bool = False

    def __post_init__(self) -> None:
        if self.sees not in SEEN:
            raise unknown(f"sees of router {self.name}:", self.sees, SEEN)


TIE = 1e-9
"""Seconds for each request in flight: where nobody waits, by JSQ."""


def _round_robin(seen):
    return 0.0


def _draw(seen):
    return seen.draw


def _in_flight(seen):
    return seen.running + seen.waiting


def _power_of_two(seen):
    return seen.running + seen.waiting if seen.lot < 2 else math.inf


def _work(seen):
    return seen.work_tokens * (seen.step_seconds / seen.slots)


def _kv(seen):
    return seen.kv_tokens


def _queued_work(seen):
    seconds = seen.queued_tokens * (seen.step_seconds / seen.slots)
    return seconds + TIE * (seen.running + seen.waiting)


def _start(seen):
    return seen.start_tokens * seen.step_seconds + TIE * (seen.running + seen.waiting)


def _lmetric(seen):
    return (seen.queued_prompt_tokens + seen.prompt_tokens) * (seen.running + seen.waiting + 1)


@cache
def _two_pool(tokens: float) -> Router:
    def score(seen):
        is_long = seen.predicted_tokens > tokens
        is_far = 2 * seen.replica >= seen.replicas
        return seen.running + seen.waiting if is_long == is_far else math.inf

    return Router(f"two-pool:{tokens:g}", score, uses_prediction=True)


_FIXED = {
    each.name: each
    for each in (
        Router("round-robin", _round_robin, "nothing"),
        Router("random", _draw, "nothing"),
        Router("affinity", _draw, "nothing", by_prefix=True),
        Router("power-of-two", _power_of_two),
        Router("jsq", _in_flight),
        Router("lmetric", _lmetric, "lengths"),
        Router("least-work", _work, "lengths", uses_prediction=True),
        Router("least-kv", _kv, "lengths", uses_prediction=True),
        Router("least-queued-work", _queued_work, "lengths", uses_prediction=True),
        Router("earliest-start", _start, "starts", uses_prediction=True),
    )
}


def known_routers() -> tuple[str, ...]:
    """The names that ``router`` takes."""
    return (*_FIXED, "two-pool:TOKENS")


def router(name: str) -> Router:
    """The router of that name.

    ``jsq``: fewest requests in flight. ``power-of-two``: the same of two drawn. ``least-work``,
    ``least-queued-work``, ``earliest-start``: by predicted tokens, over the replica's speed, the
    last two then by JSQ. ``least-kv``: KV tokens of those in flight at their predicted ends.
    ``lmetric``: prompt tokens to be prefilled times requests (OSDI'26). ``affinity``: one replica
    for each prefix. ``two-pool:TOKENS``: replicas of the first half get what is predicted to be
    that long at most, the others the rest, each by JSQ. Unknown names raise, listing the known.
    """
    if name in _FIXED:
        return _FIXED[name]
    base, _, value = name.partition(":")
    if base != "two-pool":
        raise unknown("router", name, known_routers())
    try:
        tokens = float(value)
    except ValueError:
        tokens = math.nan
    if not 0 < tokens < math.inf:
        raise InputError(f"router {name!r}: {value!r} is not a finite number of tokens above 0")
    return _two_pool(tokens)
