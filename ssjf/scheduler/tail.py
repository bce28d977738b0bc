"""Orders that spare the tail: HEADSTART and HEADROOM, static keys; DUE, which looks at the clock.

All come from a large search of ours, not from a paper. HEADSTART with c = 1/γ and no longest length
is γ-Boost in heavy traffic (Yu & Scully, arXiv 2404.08826), and the order of TIE's wait decay (see
``peers``).
"""

import math

import numpy as np

from ssjf.errors import InputError
from ssjf.request import FloatArray
from ssjf.scheduler.base import Moving, Policy, Queue
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


def headroom(share: float, tail_wait: float, shortest: float, longest: float) -> Policy:
    """``arrival + share · (tail − wait) · length``: who comes when the queue is short has room.

    A request is put back by no more than that share of what is left of the tail's wait when it
    arrives, and who arrives in the tail by nothing.

    Parameters
    ----------
    share: of the room. tail_wait: p99 of the wait first come, first served, in seconds; the wait
        is ``queue.fcfs_wait``. shortest, longest: predictions between which the length rises,
        logarithmically, from 0 to 1.
    """

    def score(queue: Queue, now: float) -> FloatArray:
        if queue.fcfs_wait is None:
            raise InputError("policy headroom reads the wait first come, first served, which only "
                             "the simulator knows")  # fmt: skip
        length = np.log(tokens(queue) / shortest) / math.log(longest / shortest)
        room = np.maximum(tail_wait - queue.fcfs_wait, 0.0)
        return queue.arrived_at + share * room * np.clip(length, 0.0, 1.0)

    if not 0 < shortest < longest:
        raise InputError(f"policy headroom: {shortest:g} tokens must be above 0 and below "
                         f"{longest:g}")  # fmt: skip
    return Policy("headroom", score, "constant", uses_fcfs_wait=True)


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
