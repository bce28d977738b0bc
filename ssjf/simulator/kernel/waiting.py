"""The waiting queue under each kind of policy.

STATIC   a heap by key.
BOUNDED  a heap by key; a timer per request moves it, once it has waited its bound, into a
         second heap that is served first, in order of arrival.
LINEAR   scores are base + slope * time: scanned.
ANY      scores come from a Python function, once per step: scanned.
"""

from ssjf.simulator.kernel.compiled import compiled, inlined
from ssjf.simulator.kernel import heap
from ssjf.simulator.kernel.state import (
    AFTER, BASE, BOUNDED, DYNAMIC, FIRST_RUNNING, FLAGS, HAS_TIMER, HEAP, HEAP_ITEM, HEAP_KEY,
    IS_HELD, IS_PROMOTED, IS_WAITING, KEY, KIND, LATE_ITEM, LATE_KEY, LINEAR, NEXT, NONE, NOW,
    OLDEST, PROMOTE_AT, PROMOTED, READY, SCORE, SLOPE, TIMER_ITEM, TIMER_KEY, TIMERS, WAITING,
)  # fmt: skip

SECONDS = 1e-12


@inlined
def add(c, s, q, f, e, i):
    """Request i starts to wait (it arrived, or was preempted)."""
    kind = c[KIND]
    s[WAITING] += 1
    q[FLAGS, i] |= IS_WAITING
    if i < s[OLDEST]:
        s[OLDEST] = i
    if kind >= LINEAR:
        q[HEAP_ITEM, s[WAITING] - 1] = i
    elif q[FLAGS, i] & IS_PROMOTED:
        s[PROMOTED] = heap.push(q[LATE_KEY], q[LATE_ITEM], s[PROMOTED], i, i)
    else:
        s[HEAP] = heap.push(q[HEAP_KEY], q[HEAP_ITEM], s[HEAP], q[KEY, i], i)
        if kind == BOUNDED and not q[FLAGS, i] & HAS_TIMER:
            q[FLAGS, i] |= HAS_TIMER
            s[TIMERS] = heap.push(q[TIMER_KEY], q[TIMER_ITEM], s[TIMERS], q[PROMOTE_AT, i], i)


@inlined
def arrive(c, s, q, f, e):
    """Take in what has arrived by now."""
    while s[NEXT] < q.shape[1] and q[READY, s[NEXT]] <= s[NOW]:
        add(c, s, q, f, e, s[NEXT])
        s[NEXT] += 1


@compiled
def promote(c, s, q, f, e):
    """BOUNDED: move those whose bound has passed into the heap that is served first.

    Their old entries stay in the heap by key until they come to its top.
    """
    while s[TIMERS] > 0 and q[TIMER_KEY, 0] <= s[NOW]:
        i = q[TIMER_ITEM, 0]
        s[TIMERS] = heap.drop_first(q[TIMER_KEY], q[TIMER_ITEM], s[TIMERS])
        q[FLAGS, i] &= ~HAS_TIMER
        if q[FLAGS, i] & IS_WAITING and not q[FLAGS, i] & IS_PROMOTED:
            q[FLAGS, i] |= IS_PROMOTED
            s[PROMOTED] = heap.push(q[LATE_KEY], q[LATE_ITEM], s[PROMOTED], i, i)
    while s[HEAP] > 0 and q[FLAGS, q[HEAP_ITEM, 0]] & IS_PROMOTED:
        s[HEAP] = heap.drop_first(q[HEAP_KEY], q[HEAP_ITEM], s[HEAP])


@compiled
def score(c, s, q, f, e, running):
    """LINEAR: score what waits now (and what runs, where a victim may be needed)."""
    now = s[NOW] * SECONDS
    for place in range(s[WAITING]):
        i = q[HEAP_ITEM, place]
        f[SCORE, i] = f[BASE, i] + f[SLOPE, i] * now
    i = s[FIRST_RUNNING] if running else NONE
    while i != NONE:
        f[SCORE, i] = f[BASE, i] + f[SLOPE, i] * now
        i = q[AFTER, i]


@compiled
def _best_place(c, s, q, f, e):
    best = 0
    for place in range(1, s[WAITING]):
        i = q[HEAP_ITEM, place]
        j = q[HEAP_ITEM, best]
        if f[SCORE, i] < f[SCORE, j] or (f[SCORE, i] == f[SCORE, j] and i < j):
            best = place
    return best


@inlined
def best(c, s, q, f, e):
    """The place of the request to serve next (0 in a heap)."""
    if c[KIND] == BOUNDED:
        promote(c, s, q, f, e)
    return _best_place(c, s, q, f, e) if c[KIND] >= LINEAR else 0


@inlined
def at(c, s, q, f, e, place):
    """The request at a place found by ``best``."""
    if s[PROMOTED] > 0:
        return q[LATE_ITEM, 0]
    return q[HEAP_ITEM, place]


@inlined
def remove(c, s, q, f, e, place):
    """The request at a place found by ``best`` stops waiting."""
    i = at(c, s, q, f, e, place)
    q[FLAGS, i] &= ~IS_WAITING
    if c[KIND] >= LINEAR:
        q[HEAP_ITEM, place] = q[HEAP_ITEM, s[WAITING] - 1]
    elif s[PROMOTED] > 0:
        s[PROMOTED] = heap.drop_first(q[LATE_KEY], q[LATE_ITEM], s[PROMOTED])
    else:
        s[HEAP] = heap.drop_first(q[HEAP_KEY], q[HEAP_ITEM], s[HEAP])
    s[WAITING] -= 1
    while c[DYNAMIC] and s[OLDEST] < s[NEXT] and not q[FLAGS, s[OLDEST]] & IS_WAITING:
        s[OLDEST] += 1


@compiled
def _worse(c, s, q, f, e, i, j):
    """Does i stand behind j in the policy's order?"""
    if c[KIND] >= LINEAR:
        return f[SCORE, i] > f[SCORE, j] or (f[SCORE, i] == f[SCORE, j] and i > j)
    late_i = q[FLAGS, i] & IS_PROMOTED
    late_j = q[FLAGS, j] & IS_PROMOTED
    if late_i and late_j:
        return i > j
    if late_i or late_j:
        return bool(late_j)
    return q[KEY, i] > q[KEY, j] or (q[KEY, i] == q[KEY, j] and i > j)


@compiled
def worst_running(c, s, q, f, e):
    """The running request that the policy would give up first."""
    victim = NONE
    i = s[FIRST_RUNNING]
    while i != NONE:
        if not q[FLAGS, i] & IS_HELD and (victim == NONE or _worse(c, s, q, f, e, i, victim)):
            victim = i
        i = q[AFTER, i]
    return victim
