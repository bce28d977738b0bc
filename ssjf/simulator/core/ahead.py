"""Copies ahead of time, by estimated waiting time (EWT); see ``simulator.memory``."""

import numpy as np

from ssjf.simulator.core import admission, order, swap
from ssjf.simulator.core.compiled import compiled
from ssjf.simulator.core.state import (
    BOUNDED, LINEAR, NO, NONE, REMAINING, RESIDENT, STACK, SWAPPED, WAITING, YES,
)  # fmt: skip

MICROSECOND = 10**6  # picoseconds
MOST_SECONDS = 1e6  # of predicted remaining time: keeps sums in range


@compiled
def _microseconds(m, r, x):
    """Predicted remaining time on this machine, in whole microseconds."""
    seconds = order.remaining(m, r, x, m.wait_prefill, m.wait_context, m.wait_token, m.wait_growth)
    return np.int64(min(seconds, MOST_SECONDS) * 1e6)


@compiled
def _most_seconds(m, tables, r, x):
    """After this time a request that waits stands first whatever comes: ageing sees to it."""
    if m.kind == BOUNDED:
        return 0.0 if r.score == -np.inf else (x.promote_at - m.now) / order.PICOSECONDS
    if m.kind == REMAINING and m.levels > 0 and m.promotion < np.inf:
        return max(order.level(m, tables, r, x) * m.promotion - order.age(m, r, x), 0.0)
    return np.inf


@compiled
def _waiting_before(m, requests, extra, tables, i, limit):
    """Remaining microseconds of those that wait and stand before i; stops above the limit.

    A heap is searched from the top, not below one that stands behind i; a list from end to end.
    """
    total, depth, heaped = 0, 1, m.kind < LINEAR
    tables[STACK, 0].item = 0
    place = 0
    while total <= limit and (depth > 0 if heaped else place < m.waiting):
        if heaped:
            depth -= 1
            place = tables[STACK, depth].item
        j = tables[WAITING, place].item
        if m.kind == LINEAR:
            order.score(m, requests, extra, tables, j)
        stands_before = order.before(requests, j, i)
        if stands_before:
            total += _microseconds(m, requests[j], extra[j])
        if not heaped:
            place += 1
        elif stands_before:
            for child in range(2 * place + 1, min(2 * place + 3, m.waiting)):
                tables[STACK, depth].item = child
                depth += 1
    return total


@compiled
def _waits_longer(m, requests, extra, tables, i, than):
    """Is the EWT of i above so many picoseconds?"""
    if _most_seconds(m, tables, requests[i], extra[i]) * order.PICOSECONDS <= than:
        return False
    limit = than // MICROSECOND * max(m.running, 1)
    total = 0
    j = m.first_running
    while j != NONE and total <= limit:
        order.score(m, requests, extra, tables, j)
        if order.before(requests, j, i):
            total += _microseconds(m, requests[j], extra[j])
        j = requests[j].after
    if total <= limit:
        total += _waiting_before(m, requests, extra, tables, i, limit - total)
    return total > limit


@compiled
def _offload(m, requests, extra, tables, free):
    if m.out_free_at > m.now or free + m.leaving >= m.spare_blocks:
        return
    i = swap.find(m, requests, extra, tables, RESIDENT, m.residents, YES, NONE)
    if i == NONE or extra[i].blocks > m.host_free:
        return
    round_trip = 2 * m.latency + extra[i].kv * (m.out_time + m.in_time)
    if _waits_longer(m, requests, extra, tables, i, round_trip + m.ahead):
        swap.evict(m, requests, extra, tables, i)
        m.ahead_out += 1


@compiled
def _upload(m, requests, extra, tables, free):
    if m.in_free_at > m.now or free <= m.spare_blocks:
        return
    i = swap.find(m, requests, extra, tables, SWAPPED, m.swapped, NO, NONE)
    if i == NONE:
        return
    first = tables[WAITING, order.first(m, requests, extra, tables)].item
    if first != i:  # what it needs is not taken from it
        free -= max(admission.blocks_lacking(m, requests[first], extra[first]), 0)
    if free - swap.blocks(m, extra[i].kv) < m.spare_blocks:
        return
    needs = m.latency + extra[i].kv * m.in_time + m.ahead
    if not _waits_longer(m, requests, extra, tables, i, needs):
        swap.bring_back(m, requests, extra, tables, i)
        m.ahead_in += 1


@compiled
def copy_ahead(m, requests, extra, tables):
    """Offload one that will wait long if blocks are scarce; upload one whose turn is near."""
    _offload(m, requests, extra, tables, m.free - m.claimed)
    _upload(m, requests, extra, tables, m.free - m.claimed)
