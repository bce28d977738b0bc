"""The event ring: bucket ``step % size`` lists the requests with an event at that step.

A request has one event ahead of it at any time: its first token, then its last.
"""

import numpy as np

from ssjf.simulator.kernel.compiled import compiled, inlined

from ssjf.simulator.kernel.state import (
    FIRST_AT,
    GENERATED,
    LEAD,
    LINK,
    NONE,
    RING,
    SINCE,
    TOTAL,
)

ONE = np.uint64(1)


@inlined
def event_step(c, s, q, f, e, i):
    """The step at which request i, decoding, reaches its next event."""
    if q[FIRST_AT, i] < 0:
        return q[SINCE, i] + c[LEAD] - q[GENERATED, i]
    return q[SINCE, i] + q[TOTAL, i] - q[GENERATED, i] - 1


@inlined
def link(c, s, q, f, e, i, step):
    bucket = step & (c[RING] - 1)
    q[LINK, i] = e[bucket]
    e[bucket] = i
    e[c[RING] + (bucket >> 6)] |= np.int64(1) << (bucket & 63)


@compiled
def unlink(c, s, q, f, e, i, step):
    bucket = step & (c[RING] - 1)
    if e[bucket] == i:
        e[bucket] = q[LINK, i]
    else:
        j = e[bucket]
        while q[LINK, j] != i:
            j = q[LINK, j]
        q[LINK, j] = q[LINK, i]
    if e[bucket] == NONE:
        e[c[RING] + (bucket >> 6)] &= ~(np.int64(1) << (bucket & 63))


@inlined
def take(c, s, q, f, e, step):
    """Empty the bucket of a step; returns the first request of its list (or NONE)."""
    bucket = step & (c[RING] - 1)
    i = e[bucket]
    if i != NONE:
        e[bucket] = NONE
        e[c[RING] + (bucket >> 6)] &= ~(np.int64(1) << (bucket & 63))
    return i


@compiled
def steps_to_event(c, s, q, f, e, step):
    """How many steps from ``step`` on have no event (there must be one somewhere)."""
    size = c[RING]
    bucket = step & (size - 1)
    ahead = 0
    word = np.uint64(e[c[RING] + (bucket >> 6)]) >> np.uint64(bucket & 63)
    while word == 0:
        ahead += 64 - (bucket & 63)
        bucket = (((bucket >> 6) + 1) << 6) & (size - 1)
        word = np.uint64(e[c[RING] + (bucket >> 6)])
    while word & ONE == 0:
        word >>= ONE
        ahead += 1
    return ahead
