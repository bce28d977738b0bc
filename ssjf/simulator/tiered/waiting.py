"""Those that wait: a heap by score, and timers where a score changes while it waits."""

import numpy as np

from ssjf.simulator.kernel import heap
from ssjf.simulator.kernel.compiled import compiled
from ssjf.simulator.tiered.scores import PICOSECONDS, age, before, score
from ssjf.simulator.tiered.state import BOUNDED, REMAINING, TIMER_ITEM, TIMER_KEY, WAITING

EARLY = 10**6  # a timer for ageing rings a microsecond early: seconds are rounded, it is not
NEVER = 4e6  # seconds: beyond the time counter


@compiled
def _put(q, w, place, i):
    w[WAITING, place] = i
    q[i].heap = place


@compiled
def _rise(q, w, place):
    i = w[WAITING, place]
    while place > 0:
        parent = (place - 1) >> 1
        j = w[WAITING, parent]
        if before(q, j, i):
            break
        _put(q, w, place, j)
        place = parent
    _put(q, w, place, i)


@compiled
def _sink(q, w, size, place):
    i = w[WAITING, place]
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and before(q, w[WAITING, child + 1], w[WAITING, child]):
            child += 1
        j = w[WAITING, child]
        if before(q, i, j):
            break
        _put(q, w, place, j)
        place = child
    _put(q, w, place, i)


@compiled
def _set_timer(c, s, q, w, b, i):
    """When does the score of i, which waits, change next?"""
    r = q[i]
    if r.has_timer:
        return
    if c.kind == BOUNDED:
        if r.score == -np.inf:
            return
        at = r.promote_at
    else:
        if len(b) == 0 or r.score == 0.0:
            return
        seconds = r.arrived + (np.floor(age(c, s, q, w, b, i) / c.promotion) + 1) * c.promotion
        if not seconds < NEVER:
            return
        at = max(np.int64(seconds * PICOSECONDS) - EARLY, s.now + 1)
    r.has_timer = 1
    s.timers = heap.push(w[TIMER_KEY], w[TIMER_ITEM], s.timers, at, i)


@compiled
def add(c, s, q, w, b, i):
    """Request i starts to wait (it arrived, or was preempted)."""
    q[i].score = score(c, s, q, w, b, i)
    q[i].waits = 1
    w[WAITING, s.waiting] = i
    s.waiting += 1
    _rise(q, w, s.waiting - 1)
    if c.kind == BOUNDED or c.kind == REMAINING:
        _set_timer(c, s, q, w, b, i)


@compiled
def arrive(c, s, q, w, b):
    """Take in what has arrived by now."""
    while s.next < len(q) and q[s.next].ready <= s.now:
        add(c, s, q, w, b, s.next)
        s.next += 1


@compiled
def remove_first(c, s, q, w, b):
    """The first in the order stops waiting."""
    q[w[WAITING, 0]].waits = 0
    s.waiting -= 1
    if s.waiting > 0:
        w[WAITING, 0] = w[WAITING, s.waiting]
        _sink(q, w, s.waiting, 0)


@compiled
def ring(c, s, q, w, b):
    """Timers: the bound of a request has passed, or ageing moves it a level up."""
    while s.timers > 0 and w[TIMER_KEY, 0] <= s.now:
        i = w[TIMER_ITEM, 0]
        s.timers = heap.drop_first(w[TIMER_KEY], w[TIMER_ITEM], s.timers)
        q[i].has_timer = 0
        if q[i].waits:
            q[i].score = -np.inf if c.kind == BOUNDED else score(c, s, q, w, b, i)
            _rise(q, w, q[i].heap)
            _set_timer(c, s, q, w, b, i)


@compiled
def reorder(c, s, q, w, b):
    """All scores of the waiting are new: make the heap anew."""
    for place in range(s.waiting):
        i = w[WAITING, place]
        q[i].score = score(c, s, q, w, b, i)
    for place in range(s.waiting // 2 - 1, -1, -1):
        _sink(q, w, s.waiting, place)
