"""Orders that spare the tail: HEADSTART and HEADROOM, static keys; DUE, which reads the clock.

All three come from our own large search, not from a paper. HEADSTART with c = 1/γ and no longest
length is γ-Boost in heavy traffic (Yu & Scully, arXiv 2404.08826), and the order of TIE's wait
decay (see ``peers``).
"""

import math

import numpy as np

from ssjf.errors import InputError
from ssjf.request import FloatArray
from ssjf.scheduler.base import AtArrival, Moving, Policy, Queue
from ssjf.scheduler.orderings import tokens


def headstart(seconds: float, longest: float = math.inf) -> Policy:
    """``arrival + c · ln(predicted)``: e times shorter is worth c seconds of head start.

    A request is overtaken only by requests that arrive within c · ln(ratio of lengths) after it.
    Predictions above ``longest`` count as ``longest``, so that the longest requests, which are the
    tail anyway, are put back no further.
    """

    def score(queue: Queue, now: float) -> FloatArray:
        return queue.arrived_at + seconds * np.log(np.minimum(tokens(queue), longest))

    return Policy("headstart", score, "constant")


def headroom(
    seconds: float, share: float, tail_wait: float, shortest: float, longest: float,
    token: float, slots: float,
) -> Policy:  # fmt: skip
    """A head start that grows as the queue gets shorter: there is then room below the tail.

    ``arrival + (c + share · (tail − wait)⁺ / ln(longest / shortest)) · ln(predicted / shortest)``,
    with the prediction clipped to the two lengths: the longest requests are put back by a share of
    what is left of the tail's wait when they arrive, and by HEADSTART with c.

    Parameters
    ----------
    seconds: c. share: of the room. tail_wait: p99 of the wait under FCFS, in seconds.
        shortest, longest: tokens. token: seconds per predicted token. slots: of the server. The
        wait is mean predicted time of the requests in flight · (their number − slots + 1) / slots.
    """
    if not 0 < shortest < longest:
        raise InputError(
            f"policy headroom: {shortest:g} tokens must be above 0 and below {longest:g}"
        )
    if not slots >= 1:
        raise InputError(f"policy headroom: {slots:g} slots; there must be at least 1")
    parameters = (seconds, share, tail_wait, shortest, longest, token, slots)
    return Policy("headroom", AtArrival(with_room, parameters))


def with_room(
    arrived: float, predicted: float, in_flight: float, in_flight_tokens: float,
    seconds: float, share: float, tail: float, shortest: float, longest: float, token: float,
    slots: float,
) -> float:  # fmt: skip
    """HEADROOM's key: HEADSTART's if ``share`` is 0, and FCFS's if ``seconds`` is 0 as well."""
    wait = 0.0
    if in_flight >= slots:
        wait = token * in_flight_tokens / in_flight * (in_flight - slots + 1) / slots
    put_back = seconds + share * max(tail - wait, 0.0) / math.log(longest / shortest)
    return arrived + put_back * math.log(min(max(predicted, shortest), longest) / shortest)


def due(weight: float, wait: float, tail: float, token: float) -> Policy:
    """Shortest first, but a request about to miss its due time counts up to 1 + η times.

    The score is −(1 + η / (1 + slack / w) · [slack ≥ 0]) / predicted, where slack is the time left
    until 0.85 of the tail's JCT. It follows cμ for the cost E[JCT] + P(JCT > tail): a request that
    has missed its due time falls back to shortest first.

    Parameters
    ----------
    weight: η. wait, tail: mean wait of the requests that wait, and p99 of the JCT, in seconds, of
        the same traffic under FCFS. token: seconds per predicted token.
    """
    return Policy("due", Moving(_due, (weight, wait, tail, token)))


def _due(
    arrived: float, predicted: float, generated: float, now: float,
    weight: float, wait: float, tail: float, token: float,
) -> float:  # fmt: skip
    slack = arrived + 0.85 * tail - now - predicted * token
    if slack < 0:
        return -1 / predicted
    return -(1 + weight / (1 + slack / wait)) / predicted
