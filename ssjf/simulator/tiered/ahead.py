"""Copies ahead of time, by estimated waiting time (EWT); see ``engine.memory``."""

import numpy as np

from ssjf.simulator.kernel.compiled import compiled
from ssjf.simulator.tiered import admission, copies, scores
from ssjf.simulator.tiered.state import (
    BOUNDED,
    NONE,
    REMAINING,
    RUNNING,
    STACK,
    WAITING,
)

MICROSECOND = 10**6  # picoseconds


@compiled
def _most_seconds(c, s, q, w, b, i):
    """After this time i, which waits, stands first whatever comes: ageing sees to it."""
    if c.kind == BOUNDED:
        if q[i].score == -np.inf:
            return 0.0
        return (q[i].promote_at - s.now) / scores.PICOSECONDS
    if c.kind == REMAINING and len(b) > 0 and c.promotion < np.inf:
        top = scores.level(c, s, q, w, b, i) * c.promotion
        return max(top - scores.age(c, s, q, w, b, i), 0.0)
    return np.inf


@compiled
def _running_before(c, s, q, w, b, i, limit):
    """Remaining microseconds of those that run and stand before i; stops above the limit."""
    total = 0
    for k in range(s.running):
        j = w[RUNNING, k]
        q[j].score = scores.score(c, s, q, w, b, j)
        if scores.before(q, j, i):
            total += scores.machine_microseconds(c, s, q, w, b, j)
            if total > limit:
                break
    return total


@compiled
def _waiting_before(c, s, q, w, b, i, limit):
    """The same of those that wait: down the heap, not below one that stands behind i."""
    total = 0
    w[STACK, 0] = 0
    depth = 1
    while depth > 0 and total <= limit:
        depth -= 1
        place = w[STACK, depth]
        j = w[WAITING, place]
        if not scores.before(q, j, i):
            continue
        total += scores.machine_microseconds(c, s, q, w, b, j)
        for child in range(2 * place + 1, min(2 * place + 3, s.waiting)):
            w[STACK, depth] = child
            depth += 1
    return total


@compiled
def waits_longer(c, s, q, w, b, i, than):
    """Is the EWT of i above so many picoseconds?"""
    if _most_seconds(c, s, q, w, b, i) * scores.PICOSECONDS <= than:
        return False
    limit = than // MICROSECOND * max(s.running, 1)
    total = _running_before(c, s, q, w, b, i, limit)
    if total <= limit:
        total += _waiting_before(c, s, q, w, b, i, limit - total)
    return total > limit


@compiled
def _offload(c, s, q, w, b, free):
    if s.out_free_at > s.now or free + s.leaving >= c.spare_blocks:
        return
    i = copies.last_resident(c, s, q, w, b, NONE)
    if i == NONE or copies.blocks(c, q[i].kv) > s.host_free:
        return
    round_trip = 2 * c.latency + q[i].kv * (c.out_time + c.in_time)
    if waits_longer(c, s, q, w, b, i, round_trip + c.ahead):
        copies.evict(c, s, q, w, b, i)
        s.ahead_out += 1


@compiled
def _upload(c, s, q, w, b, free):
    if s.in_free_at > s.now or free <= c.spare_blocks:
        return
    i = copies.first_swapped(c, s, q, w, b)
    if i == NONE:
        return
    first = w[WAITING, 0]
    if first != i:  # what it needs is not taken from it
        free -= max(admission.blocks_lacking(c, s, q[first]), 0)
    if free - copies.blocks(c, q[i].kv) < c.spare_blocks:
        return
    if not waits_longer(c, s, q, w, b, i, c.latency + q[i].kv * c.in_time + c.ahead):
        copies.bring_back(c, s, q, w, b, i)
        s.ahead_in += 1


@compiled
def copy_ahead(c, s, q, w, b):
    """Offload one that will wait long if blocks are scarce; upload one whose turn is near."""
    _offload(c, s, q, w, b, s.free - s.claimed)
    _upload(c, s, q, w, b, s.free - s.claimed)
