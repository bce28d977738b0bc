"""Orders that spare the tail: HEADSTART, a static key, and DUE, which sees who is about to be late.

Both come from a large search of ours, not from a paper. HEADSTART with c = 1/γ is γ-Boost in heavy
traffic (Yu & Scully, arXiv 2404.08826), and the order of TIE's wait decay (see ``peers``).
"""

import math

import numpy as np

from ssjf.request import FloatArray
from ssjf.scheduler.base import Moving, Policy, Queue
from ssjf.scheduler.orderings import tokens

LATE = 0.95  # of the tail's JCT: who is there is about to be late


def headstart(seconds: float) -> Policy:
    """``arrival + c · ln(predicted)``: e times shorter is worth c seconds of head start.

    A request is overtaken only by those that arrive within c · ln(ratio of lengths) after it.
    """

    def score(queue: Queue, now: float) -> FloatArray:
        return queue.arrived_at + seconds * np.log(tokens(queue))

    return Policy("headstart", score, "constant")


def due(weight: float, wait: float, tail: float, token: float) -> Policy:
    """Shortest first, but who is about to miss the due time counts up to 1 + η times.

    The score is −(1 + η · e^(−slack / 2w) · [slack ≥ 0]) / predicted, slack what is left until
    0.95 of the tail's JCT. It is cμ for the cost E[JCT] + P(JCT > tail): who has missed it falls
    back to shortest first.

    Parameters
    ----------
    weight: η. wait, tail: of the same traffic first come, first served, in seconds: the mean wait
        of those that wait, and the p99 of the JCT. token: seconds a predicted token takes.
    """
    return Policy("due", Moving(either, (0.0, weight, wait, tail, token)))


def either(
    arrived: float, predicted: float, generated: float, now: float,
    seconds: float, weight: float, wait: float, tail: float, token: float,
) -> float:  # fmt: skip
    """HEADSTART where ``weight`` is below 0 (FCFS if ``seconds`` is 0 as well), else DUE.

    One function, so that an order may change while requests wait.
    """
    if weight < 0:
        return arrived + seconds * math.log(predicted)
    slack = arrived + LATE * tail - now - predicted * token
    urgent = weight * math.exp(-slack / (2 * wait)) if slack >= 0 else 0.0
    return -(1 + urgent) / predicted
