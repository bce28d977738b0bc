"""The orderings that come with the package, one function each. Lower scores go first."""

from ssjf.errors import InputError
from ssjf.request import FloatArray
from ssjf.scheduler.base import Bound, Queue, Score


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


def aged(tokens_per_second: float) -> Score:
    """SSJF with linear ageing: each second of waiting is worth so many predicted tokens.

    Ageing at one rate for all moves every waiting score alike, so the static key
    ``predicted + rate * arrival`` gives the same order at any time. A request of p predicted
    tokens is overtaken only by requests that arrive within p / rate seconds after it.
    """

    def score(queue: Queue, now: float) -> FloatArray:
        return tokens(queue) + tokens_per_second * queue.arrived_at

    return score


def promoted_after(seconds_per_token: float) -> Bound:
    """A relative starvation bound: promote once wait / predicted length exceeds a factor."""

    def bound(queue: Queue) -> FloatArray:
        return seconds_per_token * tokens(queue)

    return bound


def tokens(queue: Queue) -> FloatArray:
    """Predictions that are weighed against time must be lengths, not classes or ranks."""
    if len(queue) and not queue.predicted_tokens.min() > 0:
        raise InputError(
            "this policy weighs predicted lengths against time: predictions must be tokens above 0 "
            "(the predictor class-mean:NAME turns a column of class ids into tokens)"
        )
    return queue.predicted_tokens
