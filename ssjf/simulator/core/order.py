"""The policy's order: current scores, heaps of scores, and the waiting queue.

A heap is a row of ``tables`` with the smallest key first, then item; if ``tracked``, the next row
has the place of every item. Scores that only change at known times are kept in a heap, with timers
for those times; scores that change all the time (LINEAR, MOVING, ANY) in a list, searched in full.
"""

import numpy as np

from ssjf.simulator.core.compiled import call, compiled
from ssjf.simulator.core.state import (
    BOUNDED, LEVELS, LINEAR, MOVING, NO, NONE, REMAINING, SLOPES, TIMERS, VICTIMS, WAITING,
    WAITING_PLACE, YES,
)  # fmt: skip

SECONDS, PICOSECONDS = 1e-12, 1e12
EARLY = 10**6  # a timer for ageing rings 1 µs early, because its seconds are rounded
LATEST = 4e6  # seconds: beyond the time counter
MIRROR = np.int64(2**63 - 1)


@compiled
def _put(tables, row, place, key, item, tracked):
    tables[row, place].key = key
    tables[row, place].item = item
    if tracked:
        tables[row + 1, item].item = place


@compiled
def _precedes(entry, key, item):
    return entry.key < key or (entry.key == key and entry.item < item)


@compiled
def rise(tables, row, place, key, item, tracked):
    """Insert an entry at a free ``place`` of a heap, or move it up from there."""
    while place > 0:
        parent = (place - 1) >> 1
        above = tables[row, parent]
        if _precedes(above, key, item):
            break
        _put(tables, row, place, above.key, above.item, tracked)
        place = parent
    _put(tables, row, place, key, item, tracked)


@compiled
def sink(tables, row, size, place, key, item, tracked):
    """Insert an entry at a free ``place`` of a heap, or move it down from there."""
    while 2 * place + 1 < size:
        child = 2 * place + 1
        least = tables[row, child]
        if child + 1 < size and _precedes(tables[row, child + 1], least.key, least.item):
            child += 1
            least = tables[row, child]
        if not _precedes(least, key, item):
            break
        _put(tables, row, place, least.key, least.item, tracked)
        place = child
    _put(tables, row, place, key, item, tracked)


@compiled
def take_out(tables, row, size, place, tracked):
    """Remove the entry at a place of a heap, which then has ``size`` entries."""
    if place == size:
        return
    last = tables[row, size]
    if place > 0 and not _precedes(tables[row, (place - 1) >> 1], last.key, last.item):
        rise(tables, row, place, last.key, last.item, tracked)
    else:
        sink(tables, row, size, place, last.key, last.item, tracked)


@compiled
def sortable(value):
    """An integer that sorts as the float does: its bits, mirrored if negative; -0.0 is 0.0."""
    bits = np.float64(value + 0.0).view(np.int64)
    return bits ^ MIRROR if bits < 0 else bits


@compiled
def made(m, r):
    return r.generated + m.step - r.since if r.since > 0 else r.generated


@compiled
def remaining(m, r, x, prefill, context, token, growth):
    """Predicted remaining seconds of a request; see ``scheduler.alise``."""
    tokens, estimate = made(m, r), x.estimate
    while estimate <= tokens:  # the prediction is exceeded
        estimate *= 2
    left = estimate - tokens
    if growth:
        read = left * (r.prompt + tokens) + left * (left - 1) / 2
        decode = context * read + token * left
    else:
        decode = left * (context * r.prompt + token)
    return prefill * r.prompt + decode if tokens == 0 else decode


@compiled
def level(m, tables, r, x):
    """Predicted remaining seconds or, if there are levels, their level."""
    seconds = remaining(m, r, x, m.order_prefill, m.order_context, m.order_token, m.order_growth)
    if m.levels == 0:
        return seconds
    reached, key = 0, sortable(seconds)
    while reached < m.levels and tables[LEVELS, reached].key <= key:
        reached += 1
    return float(reached)


@compiled
def age(m, x):
    return max(m.now / PICOSECONDS - x.arrived, 0.0)


@compiled
def moving(m, r, x):
    """The compiled score of a request now: the policy's or, if it runs, that of victims."""
    function, tokens = m.function if r.waits else m.victims, float(made(m, r))
    return call(function, x.arrived, x.base, tokens, m.now / PICOSECONDS, m.parameters)


@compiled
def make_key(m, requests, extra, i):
    """Compute the score of i, which arrives, from the requests in flight; i is then one, too."""
    in_flight, x = m.running + m.waiting, extra[i]
    tokens = m.in_flight_tokens if in_flight > 0 else 0.0  # drops the rounding errors of the sum
    requests[i].score = call(m.function, x.arrived, x.base, float(in_flight), tokens, m.parameters)
    m.in_flight_tokens = tokens + x.base


@compiled
def score(m, requests, extra, tables, i):
    """Return the current score of i and store it in ``score``, which may be old."""
    r, x = requests[i], extra[i]
    if m.kind == LINEAR:
        r.score = x.base + x.slope * (m.now * SECONDS)
    elif m.kind == MOVING:
        r.score = moving(m, r, x)
    elif m.kind == REMAINING:
        r.score = max(level(m, tables, r, x) - np.floor(age(m, x) / m.promotion), 0.0)
    return r.score


@compiled
def before(requests, i, j):
    """Is i before j in the order, by the stored scores? Equal scores: by arrival."""
    a, b = requests[i].score, requests[j].score
    return a < b or (a == b and i < j)


@compiled
def wait(m, requests, extra, tables, i):
    """Add request i to the waiting queue: it has arrived, or was preempted."""
    r, x = requests[i], extra[i]
    place, r.waits = m.waiting, 1
    m.waiting += 1
    if m.kind >= LINEAR:
        _put(tables, WAITING, place, np.float64(x.base).view(np.int64), i, NO)
        tables[SLOPES, place].key = np.float64(x.slope).view(np.int64)
        m.best = NONE
        return
    score(m, requests, extra, tables, i)
    rise(tables, WAITING, place, sortable(r.score), i, m.tracked)
    if m.tracked:
        _set_timer(m, requests, extra, tables, i)


@compiled
def _set_timer(m, requests, extra, tables, i):
    """Set a timer for the next change of the score of i, which waits."""
    r, x = requests[i], extra[i]
    if x.has_timer or r.score == (-np.inf if m.kind == BOUNDED else 0.0):
        return
    at = x.promote_at
    if m.kind == REMAINING:
        seconds = x.arrived + (np.floor(age(m, x) / m.promotion) + 1) * m.promotion
        if not seconds < LATEST:
            return
        at = max(np.int64(seconds * PICOSECONDS) - EARLY, m.now + 1)
    x.has_timer = 1
    rise(tables, TIMERS, m.timers, at, i, NO)
    m.timers += 1


@compiled
def ring_timers(m, requests, extra, tables):
    """Promote the requests whose timers have ended: bound reached, or one level up by ageing."""
    while m.timers > 0 and tables[TIMERS, 0].key <= m.now:
        i = tables[TIMERS, 0].item
        m.timers -= 1
        take_out(tables, TIMERS, m.timers, NO, NO)
        extra[i].has_timer = 0
        if requests[i].waits:
            if m.kind == BOUNDED:
                requests[i].score = -np.inf
            key = sortable(score(m, requests, extra, tables, i))
            rise(tables, WAITING, tables[WAITING_PLACE, i].item, key, i, YES)
            _set_timer(m, requests, extra, tables, i)


@compiled
def first(m, requests, extra, tables):
    """The place in WAITING of the first request in the order."""
    if m.kind < LINEAR or m.best != NONE:
        return NO if m.kind < LINEAR else m.best
    best, least, least_item = 0, np.inf, 0
    for place in range(m.waiting):
        i = tables[WAITING, place].item
        value = requests[i].score
        if m.kind == LINEAR:
            base = np.int64(tables[WAITING, place].key).view(np.float64)
            slope = np.int64(tables[SLOPES, place].key).view(np.float64)
            value = base + slope * (m.now * SECONDS)
        elif m.kind == MOVING:
            value = moving(m, requests[i], extra[i])
        if place == 0 or value < least or (value == least and i < least_item):
            best, least, least_item = place, value, i
    requests[least_item].score = least
    m.best = best
    return best


@compiled
def outranks_nobody(m, requests, tables, i):
    """Is it certain that no running request is after i, which waits? (False: look.)"""
    if not m.ranked or m.running == 0:
        return m.running == 0
    return ~sortable(requests[i].score) <= tables[VICTIMS, 0].key


@compiled
def stop_waiting(m, requests, tables, place):
    """Remove the request at a place of WAITING, which gets a slot."""
    requests[tables[WAITING, place].item].waits = 0
    m.waiting -= 1
    if m.kind >= LINEAR:
        last = tables[WAITING, m.waiting]
        _put(tables, WAITING, place, last.key, last.item, NO)
        tables[SLOPES, place].key = tables[SLOPES, m.waiting].key
        m.best = NONE
    else:
        take_out(tables, WAITING, m.waiting, place, m.tracked)
