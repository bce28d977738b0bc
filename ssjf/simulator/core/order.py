"""The policy's order: scores now, and those that wait in it.

Scores that only change at known times are a heap, with timers for those times. Scores that move
all the time (LINEAR, ANY) are a plain list, looked through when the first is wanted.
"""

import numpy as np

from ssjf.simulator.core import heap
from ssjf.simulator.core.compiled import compiled
from ssjf.simulator.core.state import (
    BOUNDED, LEVELS, LINEAR, NO, NONE, REMAINING, SLOPES, TIMERS, WAITING, WAITING_PLACE, YES,
)  # fmt: skip

SECONDS = 1e-12
PICOSECONDS = 1e12
EARLY = 10**6  # a timer for ageing rings a microsecond early: seconds are rounded, it is not
NEVER = 4e6  # seconds: beyond the time counter
MIRROR = np.int64(2**63 - 1)


@compiled
def sortable(value):
    """An integer in the order of floats: the bits, negative ones mirrored; -0.0 is 0.0."""
    bits = np.float64(value + 0.0).view(np.int64)
    return bits ^ MIRROR if bits < 0 else bits


@compiled
def remaining(m, r, x, prefill, context, token, growth):
    """Predicted remaining seconds of a request; see ``policy.alise``."""
    made = r.generated + m.step - r.since if r.since > 0 else r.generated
    estimate = x.estimate
    while estimate <= made:  # the prediction is exceeded
        estimate *= 2
    left = estimate - made
    if growth:
        read = left * (r.prompt + made) + left * (left - 1) / 2
        decode = context * read + token * left
    else:
        decode = left * (context * r.prompt + token)
    return prefill * r.prompt + decode if made == 0 else decode


@compiled
def level(m, tables, r, x):
    """Predicted remaining seconds of a request or, where there are levels, the level of that."""
    seconds = remaining(m, r, x, m.order_prefill, m.order_context, m.order_token, m.order_growth)
    if m.levels == 0:
        return seconds
    found, key = 0, sortable(seconds)
    while found < m.levels and tables[LEVELS, found].key <= key:
        found += 1
    return float(found)


@compiled
def age(m, r, x):
    """Seconds since it arrived."""
    return max(m.now / PICOSECONDS - x.arrived, 0.0)


@compiled
def score(m, requests, extra, tables, i):
    """The score of i now, also noted in ``score``, where what only changes at events is kept."""
    r, x = requests[i], extra[i]
    if m.kind == LINEAR:
        r.score = x.base + x.slope * (m.now * SECONDS)
    elif m.kind == REMAINING:
        r.score = level(m, tables, r, x)
        if m.levels > 0:
            r.score = max(r.score - np.floor(age(m, r, x) / m.promotion), 0.0)
    return r.score


@compiled
def before(requests, i, j):
    """Does i stand before j, by the scores noted? Equal scores: by arrival."""
    a, b = requests[i].score, requests[j].score
    return a < b or (a == b and i < j)


@compiled
def wait(m, requests, extra, tables, i):
    """Request i starts to wait: it arrived, or was preempted."""
    r, x = requests[i], extra[i]
    r.waits = 1
    place = m.waiting
    m.waiting += 1
    if m.kind >= LINEAR:
        tables[WAITING, place].item = i
        tables[WAITING, place].key = np.float64(x.base).view(np.int64)
        tables[SLOPES, place].key = np.float64(x.slope).view(np.int64)
        m.best = NONE
        return
    if m.kind == REMAINING:
        score(m, requests, extra, tables, i)
    heap.rise(tables, WAITING, place, sortable(r.score), i, m.tracked)
    if m.tracked:
        _set_timer(m, requests, extra, tables, i)


@compiled
def _set_timer(m, requests, extra, tables, i):
    """When does the score of i, which waits, change next?"""
    r, x = requests[i], extra[i]
    if x.has_timer or r.score == (-np.inf if m.kind == BOUNDED else 0.0):
        return
    at = x.promote_at
    if m.kind == REMAINING:
        seconds = x.arrived + (np.floor(age(m, r, x) / m.promotion) + 1) * m.promotion
        if not seconds < NEVER:
            return
        at = max(np.int64(seconds * PICOSECONDS) - EARLY, m.now + 1)
    x.has_timer = 1
    heap.rise(tables, TIMERS, m.timers, at, i, NO)
    m.timers += 1


@compiled
def ring_timers(m, requests, extra, tables):
    """The bound of a request has passed, or ageing moves it a level up."""
    while m.timers > 0 and tables[TIMERS, 0].key <= m.now:
        i = tables[TIMERS, 0].item
        m.timers -= 1
        heap.take_out(tables, TIMERS, m.timers, NO, NO)
        r, x = requests[i], extra[i]
        x.has_timer = 0
        if r.waits:
            if m.kind == BOUNDED:
                r.score = -np.inf
            else:
                score(m, requests, extra, tables, i)
            place = tables[WAITING_PLACE, i].item
            heap.rise(tables, WAITING, place, sortable(r.score), i, YES)
            _set_timer(m, requests, extra, tables, i)


@compiled
def first(m, requests, extra, tables):
    """The place in WAITING of the first in the order."""
    if m.kind < LINEAR:
        return NO
    if m.best != NONE:
        return m.best
    now = m.now * SECONDS
    best, least, least_item = 0, np.inf, 0
    for place in range(m.waiting):
        i = tables[WAITING, place].item
        if m.kind == LINEAR:
            base = np.int64(tables[WAITING, place].key).view(np.float64)
            value = base + np.int64(tables[SLOPES, place].key).view(np.float64) * now
        else:
            value = requests[i].score
        if place == 0 or value < least or (value == least and i < least_item):
            best, least, least_item = place, value, i
    requests[least_item].score = least
    m.best = best
    return best


@compiled
def stop_waiting(m, requests, extra, tables, place):
    """The request at a place of WAITING gets a slot."""
    requests[tables[WAITING, place].item].waits = 0
    m.waiting -= 1
    if m.kind >= LINEAR:
        tables[WAITING, place].item = tables[WAITING, m.waiting].item
        tables[WAITING, place].key = tables[WAITING, m.waiting].key
        tables[SLOPES, place].key = tables[SLOPES, m.waiting].key
        m.best = NONE
    else:
        heap.take_out(tables, WAITING, m.waiting, place, m.tracked)
