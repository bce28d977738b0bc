"""A request's score now, and its predicted remaining time; see ``policy.alise``."""

import numpy as np

from ssjf.simulator.kernel.compiled import compiled
from ssjf.simulator.tiered.state import LINEAR, REMAINING

SECONDS = 1e-12
PICOSECONDS = 1e12
MOST_SECONDS = 1e6  # of predicted remaining time in an EWT: keeps sums in range


@compiled
def _remaining(prefill, context, token, growth, r):
    left = r.estimate - r.made
    if growth:
        read = left * (r.prompt + r.made) + left * (left - 1) / 2
        decode = context * read + token * left
    else:
        decode = left * (context * r.prompt + token)
    return prefill * r.prompt + decode if r.made == 0 else decode


@compiled
def machine_microseconds(c, s, q, w, b, i):
    """Predicted remaining time on this machine, in whole microseconds."""
    seconds = _remaining(c.wait_prefill, c.wait_context, c.wait_token, c.wait_growth, q[i])
    return np.int64(min(seconds, MOST_SECONDS) * 1e6)


@compiled
def age(c, s, q, w, b, i):
    """Seconds since it arrived."""
    return max(s.now / PICOSECONDS - q[i].arrived, 0.0)


@compiled
def level(c, s, q, w, b, i):
    """The level of its remaining time, ageing apart."""
    seconds = _remaining(c.order_prefill, c.order_context, c.order_token, c.order_growth, q[i])
    found = 0
    while found < len(b) and b[found] <= seconds:
        found += 1
    return found


@compiled
def score(c, s, q, w, b, i):
    """Its score now. What only changes at events is kept in ``q[i].score``."""
    if c.kind == LINEAR:
        return q[i].base + q[i].slope * (s.now * SECONDS)
    if c.kind != REMAINING:
        return q[i].score
    if len(b) == 0:
        return _remaining(c.order_prefill, c.order_context, c.order_token, c.order_growth, q[i])
    ups = np.floor(age(c, s, q, w, b, i) / c.promotion)
    return max(level(c, s, q, w, b, i) - ups, 0.0)


@compiled
def before(q, i, j):
    """Does i stand before j? Equal scores: by arrival."""
    return q[i].score < q[j].score or (q[i].score == q[j].score and i < j)
