"""The basic orderings, one function each: the lowest score is served first."""

from ssjf.errors import InputError
from ssjf.request import FloatArray
from ssjf.scheduler.base import Policy, Queue


def fcfs(queue: Queue, now: float) -> FloatArray:
    """First come, first served."""
    return queue.arrived_at


def shortest_predicted(queue: Queue, now: float) -> FloatArray:
    """Shortest (predicted) job first: SSJF, arXiv 2404.08509; with true lengths, SJF."""
    return queue.predicted_tokens


def response_ratio(queue: Queue, now: float) -> FloatArray:
    """Highest response ratio next (Brinch Hansen 1971): (wait + length) / length, highest first.

    The constant 1 of the ratio is dropped: it changes no order.
    """
    return (queue.arrived_at - now) / tokens(queue)


def aged(tokens_per_second: float) -> Policy:
    """SSJF with linear ageing: a second of waiting counts as ``tokens_per_second`` fewer tokens.

    All waiting scores fall at the same rate, so the static key ``predicted + rate * arrival`` gives
    the same order at any time. A request of p predicted tokens is overtaken only by requests that
    arrive within p / rate seconds after it.
    """

    def score(queue: Queue, now: float) -> FloatArray:
        return tokens(queue) + tokens_per_second * queue.arrived_at

    return Policy("ssjf-aged", score, "constant")


def bounded(seconds_per_token: float) -> Policy:
    """SSJF with a relative starvation bound: promote once wait / predicted length exceeds it."""

    def bound(queue: Queue) -> FloatArray:
        return seconds_per_token * tokens(queue)

    return Policy("ssjf-bounded", shortest_predicted, "constant", bound)


def tokens(queue: Queue) -> FloatArray:
    """The predictions, for a score that weighs them against time.

    Raises InputError unless they are lengths: class ids and ranks cannot be weighed.
    """
    if len(queue) and not queue.predicted_tokens.min() > 0:
        raise InputError(
            "this policy weighs predicted lengths against time: predictions must be tokens above 0 "
            "(the predictor class-mean:NAME turns a column of class ids into tokens)"
        )
    return queue.predicted_tokens
