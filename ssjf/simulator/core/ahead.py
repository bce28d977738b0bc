"""Copies ahead of time, by estimated waiting time (EWT); see ``simulator.server.Memory``."""

import numpy as np

from ssjf.simulator.core import admission, order, swap
from ssjf.simulator.core.compiled import compiled
from ssjf.simulator.core.state import (
    BOUNDED, LINEAR, MOVING, NO, NONE, REMAINING, RESIDENT, SWAPPED, WAITING, YES,
)  # fmt: skip

MICROSECOND = 10**6  # picoseconds
MOST_SECONDS = 1e6  # of predicted remaining time: keeps sums in range


@compiled
def _microseconds_before(m, requests, extra, tables, j, i):
    """Predicted remaining time of j on this machine if j is before i in the order, else 0."""
    if not requests[j].waits or m.kind == LINEAR or m.kind == MOVING:
        order.score(m, requests, extra, tables, j)
    if not order.before(requests, j, i):
        return 0
    r, x = requests[j], extra[j]
    seconds = order.remaining(m, r, x, m.wait_prefill, m.wait_context, m.wait_token, m.wait_growth)
    return np.int64(min(seconds, MOST_SECONDS) * 1e6)


@compiled
def _most_seconds(m, tables, r, x):
    """Seconds after which ageing makes a waiting request the first, whatever arrives."""
    if m.kind == BOUNDED:
        return 0.0 if r.score == -np.inf else (x.promote_at - m.now) / order.PICOSECONDS
    if m.kind == REMAINING and m.levels > 0 and m.promotion < np.inf:
        return max(order.level(m, tables, r, x) * m.promotion - order.age(m, x), 0.0)
    return np.inf


@compiled
def _waits_longer(m, requests, extra, tables, i, than):
    """Is the EWT of i above ``than`` picoseconds?"""
    if _most_seconds(m, tables, requests[i], extra[i]) * order.PICOSECONDS <= than:
        return False
    limit = than // MICROSECOND * max(m.running, 1)
    total, place, j = 0, 0, m.first_running
    while total <= limit and j != NONE:
        total += _microseconds_before(m, requests, extra, tables, j, i)
        j = requests[j].after
    while total <= limit and place < m.waiting:
        j = tables[WAITING, place].item
        total += _microseconds_before(m, requests, extra, tables, j, i)
        place += 1
    return total > limit


@compiled
def offload(m, requests, extra, tables):
    """If spare blocks are lacking, copy the last resident to the host if it will wait long."""
    if m.out_free_at > m.now or m.free - m.claimed + m.leaving >= m.spare_blocks:
        return
    i = swap.find(m, requests, extra, tables, RESIDENT, m.residents, YES, NONE)
    if i == NONE or extra[i].blocks > m.host_free:
        return
    round_trip = 2 * m.latency + extra[i].kv * (m.out_time + m.in_time)
    if _waits_longer(m, requests, extra, tables, i, round_trip + m.ahead):
        swap.evict(m, requests, extra, tables, i)
        m.offloads_ahead += 1


@compiled
def upload(m, requests, extra, tables):
    """If blocks beyond the spare ones are free, copy back the first swapped request in time."""
    free = m.free - m.claimed
    if m.in_free_at > m.now or free <= m.spare_blocks:
        return
    i = swap.find(m, requests, extra, tables, SWAPPED, m.swapped, NO, NONE)
    if i == NONE:
        return
    first = tables[WAITING, order.first(m, requests, extra, tables)].item
    if first != i:  # leave it the blocks that it needs
        free -= max(admission.blocks_lacking(m, requests[first], extra[first]), 0)
    if free - swap.blocks(m, extra[i].kv) < m.spare_blocks:
        return
    needs = m.latency + extra[i].kv * m.in_time + m.ahead
    if not _waits_longer(m, requests, extra, tables, i, needs):
        swap.bring_back(m, requests, extra, tables, i)
        m.uploads_ahead += 1
