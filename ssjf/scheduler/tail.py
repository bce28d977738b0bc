"""Orders that spare the tail: HEADSTART and HEADROOM, keys; DUE, which looks at the clock.

All come from a large search of ours, not from a paper. HEADSTART with c = 1/γ and no longest length
is γ-Boost in heavy traffic (Yu & Scully, arXiv 2404.08826), and the order of TIE's wait decay (see
``peers``).
"""

import math

import numpy as np

from ssjf.errors import InputError
from ssjf.request import FloatArray
from ssjf.scheduler.base import AtArrival, Moving, Policy, Queue
from ssjf.scheduler.orderings import tokens

LATE = 0.85  # of the tail's JCT: who is there is about to be late


def headstart(seconds: float, longest: float = math.inf) -> Policy:
    """``arrival + c · ln(predicted)``: e times shorter is worth c seconds of head start.

    A request is overtaken only by those that arrive within c · ln(ratio of lengths) after it.
    ``longest``: a longer prediction counts as this one, so that the longest, which are the tail
    anyway, pay no more than others.
    """

    def score(queue: Queue, now: float) -> FloatArray:
        return queue.arrived_at + seconds * np.log(np.minimum(tokens(queue), longest))

    return Policy("headstart", score, "constant")


def headroom(
    seconds: float, share: float, tail_wait: float, shortest: float, longest: float,
    token: float, slots: float,
) -> Policy:  # fmt: skip
    """A head start that is longer where the queue is short: who comes then has room in the tail.

    ``arrival + (c + share · (tail − wait)⁺ / ln(longest / shortest)) · ln(predicted / shortest)``,
    the prediction between the two lengths: the longest are put back by a share of what is left of
    the tail's wait when they arrive, and by what HEADSTART's c makes.

    Parameters
    ----------
    seconds: c. share: of the room. tail_wait: p99 of the wait first come, first served, in seconds.
        shortest, longest: tokens. token: seconds a predicted token takes. slots: of the server; the
        wait is what is predicted of those in flight, without as many as run, over the slots.
    """
    if not 0 < shortest < longest:
        raise InputError(f"policy headroom: {shortest:g} tokens must be above 0 and below "
                         f"{longest:g}")  # fmt: skip
    if not slots >= 1:
        raise InputError(f"policy headroom: {slots:g} slots; there must be at least 1")
    parameters = (seconds, share, tail_wait, shortest, longest, token, slots)
    return Policy("headroom", AtArrival(with_room, parameters))


def with_room(
    arrived: float, predicted: float, in_flight: float, in_flight_tokens: float,
    seconds: float, share: float, tail: float, shortest: float, longest: float, token: float,
    slots: float,
) -> float:  # fmt: skip
    """HEADROOM's key; HEADSTART's where ``share`` is 0, and FCFS's where ``seconds`` is as well."""
    wait = 0.0
    if in_flight >= slots:
        wait = token * in_flight_tokens / in_flight * (in_flight - slots + 1) / slots
    put_back = seconds + share * max(tail - wait, 0.0) / math.log(longest / shortest)
    return arrived + put_back * math.log(min(max(predicted, shortest), longest) / shortest)


def due(weight: float, wait: float, tail: float, token: float) -> Policy:
    """Shortest first, but who is about to miss the due time counts up to 1 + η times.

    The score is −(1 + η / (1 + slack / w) · [slack ≥ 0]) / predicted, slack what is left until
    0.85 of the tail's JCT. After cμ for the cost E[JCT] + P(JCT > tail): who has missed it falls
    back to shortest first.

    Parameters
    ----------
    weight: η. wait, tail: of the same traffic first come, first served, in seconds: the mean wait
        of those that wait, and the p99 of the JCT. token: seconds a predicted token takes.
    """
    return Policy("due", Moving(either, (0.0, weight, wait, tail, token, 1.0)))


def either(
    arrived: float, predicted: float, generated: float, now: float,
    seconds: float, weight: float, wait: float, tail: float, token: float, longest: float,
) -> float:  # fmt: skip
    """HEADSTART where ``weight`` is below 0 (FCFS if ``seconds`` is 0 as well), else DUE.

    One function, so that an order may change while requests wait.
    """
    if weight < 0:
        return arrived + seconds * math.log(min(predicted, longest))
    slack = arrived + LATE * tail - now - predicted * token
    urgent = weight / (1 + slack / wait) if slack >= 0 else 0.0
    return -(1 + urgent) / predicted
