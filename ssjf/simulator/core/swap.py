"""The KV of waiting requests: on the device, on its way to the host or back, or dropped.

Each direction makes one copy at a time.
"""

from ssjf.simulator.core import order, ring
from ssjf.simulator.core.compiled import compiled
from ssjf.simulator.core.state import (
    COMING, DEVICE, GOING, HOST, LEAVING, LINEAR, MOVING, NEVER, NONE, NOWHERE, PARTIAL, RESIDENT,
    RETURNING, SWAPPED,
)  # fmt: skip


@compiled
def blocks(m, tokens):
    """Number of KV blocks that hold ``tokens`` tokens (a shift if a block is a power of two)."""
    if m.shift >= 0:
        return (tokens + m.block - 1) >> m.shift
    return (tokens + m.block - 1) // m.block


@compiled
def enlist(extra, tables, row, size, i):
    """Append i to a list; returns the new size."""
    tables[row, size].item = i
    extra[i].spot = size
    return size + 1


@compiled
def unlist(extra, tables, row, size, i):
    """Remove i from a list; returns the new size."""
    last = tables[row, size - 1].item
    tables[row, extra[i].spot].item = last
    extra[last].spot = extra[i].spot
    return size - 1


@compiled
def keep(m, extra, tables, i):
    """Note that i waits with its KV on the device (a resident)."""
    m.residents = enlist(extra, tables, RESIDENT, m.residents, i)
    m.resident += extra[i].blocks


@compiled
def release(m, extra, tables, i):
    """Note that i is no longer a resident."""
    m.residents = unlist(extra, tables, RESIDENT, m.residents, i)
    m.resident -= extra[i].blocks


@compiled
def drop(m, r, x):
    """Drop the KV of a waiting request: it will be computed again."""
    m.free += x.blocks
    m.recomputed_tokens += x.kv
    x.blocks = x.kv = x.prefilled = 0
    r.place = NOWHERE


@compiled
def evict(m, requests, extra, tables, i):
    """Copy the KV of i, a resident, to the host to free its blocks; drop it if the host is full."""
    r, x = requests[i], extra[i]
    release(m, extra, tables, i)
    if x.blocks > m.host_free:
        m.dropped_for_full_host += 1
        drop(m, r, x)
        return
    m.host_free -= x.blocks
    m.least_host_free = min(m.least_host_free, m.host_free)
    m.leaving += x.blocks
    time = m.latency + x.kv * m.out_time
    m.out_free_at = min(max(m.now, m.out_free_at) + time, m.limit + 1)  # beyond: overflow
    m.link_out_busy += time
    m.swaps_out += 1
    m.swapped_out_tokens += x.kv
    r.place = LEAVING
    x.copied_at = m.out_free_at
    m.copy_ends = min(m.copy_ends, x.copied_at)
    x.swapped_at = m.now
    tables[GOING, m.out_last % len(requests)].item = i
    m.out_last += 1


@compiled
def bring_back(m, requests, extra, tables, i):
    """Start copying the KV of i back to the device, where there are blocks for it."""
    r, x = requests[i], extra[i]
    m.swapped = unlist(extra, tables, SWAPPED, m.swapped, i)
    x.blocks = blocks(m, x.kv)
    m.free -= x.blocks
    m.least_free = min(m.least_free, m.free)
    time = m.latency + x.kv * m.in_time
    m.in_free_at = min(max(m.now, m.in_free_at) + time, m.limit + 1)  # beyond: overflow
    m.link_in_busy += time
    m.swaps_in += 1
    m.swapped_in_tokens += x.kv
    r.place = COMING
    m.uploading += r.waits
    x.copied_at = m.in_free_at
    m.copy_ends = min(m.copy_ends, x.copied_at)
    tables[RETURNING, m.in_last % len(requests)].item = i
    m.in_last += 1


@compiled
def end_copies(m, requests, extra, tables, cells):
    """Process the copies that have ended by now, and note when the next one ends."""
    n = len(requests)
    m.copy_ends = NEVER
    while m.out_first < m.out_last:
        i = tables[GOING, m.out_first % n].item
        r, x = requests[i], extra[i]
        if x.copied_at > m.now:
            m.copy_ends = x.copied_at
            break
        m.out_first += 1
        m.leaving -= x.blocks
        m.free += x.blocks
        x.blocks = 0
        r.place = HOST
        m.swapped = enlist(extra, tables, SWAPPED, m.swapped, i)
    while m.in_first < m.in_last:
        i = tables[RETURNING, m.in_first % n].item
        r, x = requests[i], extra[i]
        if x.copied_at > m.now:
            m.copy_ends = min(m.copy_ends, x.copied_at)
            break
        m.in_first += 1
        m.host_free += blocks(m, x.kv)  # fewer than ``x.blocks`` if it got a slot meanwhile
        x.swapped += x.copied_at - x.swapped_at
        r.place = DEVICE
        if r.waits:
            m.uploading -= 1
            keep(m, extra, tables, i)
        elif x.prefilled:
            ring.start_decoding(m, requests, extra, cells, i, m.step)
        else:
            m.partials = enlist(extra, tables, PARTIAL, m.partials, i)


@compiled
def find(m, requests, extra, tables, row, size, last, excepted):
    """The last (NO: first) in the policy's order of a list of waiting requests but ``excepted``."""
    best = NONE
    for place in range(size):
        i = tables[row, place].item
        if m.kind == LINEAR or m.kind == MOVING:
            order.score(m, requests, extra, tables, i)
        if i != excepted and (best == NONE or order.before(requests, best, i) == last):
            best = i
    return best
