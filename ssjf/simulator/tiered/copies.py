"""KV on its way: copies out and back, one at a time in each direction, and what was dropped."""

from ssjf.simulator.kernel.compiled import compiled
from ssjf.simulator.tiered.scores import before
from ssjf.simulator.tiered.state import (
    COMING,
    DEVICE,
    GOING,
    HOST,
    LEAVING,
    NONE,
    NOWHERE,
    PARKED,
    RETURNING,
)


@compiled
def blocks(c, tokens):
    """Blocks that hold so many tokens."""
    return (tokens + c.block - 1) // c.block


@compiled
def take(s, r, count):
    """Blocks of the device for a request."""
    s.free -= count
    s.least_free = min(s.least_free, s.free)
    r.blocks += count


@compiled
def list_parked(c, s, q, w, b, i):
    w[PARKED, s.parked] = i
    q[i].parked = s.parked
    s.parked += 1
    s.resident += q[i].blocks  # it comes from a slot: its KV is on the device


@compiled
def unlist_parked(c, s, q, w, b, i):
    s.parked -= 1
    last = w[PARKED, s.parked]
    w[PARKED, q[i].parked] = last
    q[last].parked = q[i].parked
    if q[i].place == DEVICE:
        s.resident -= q[i].blocks
    s.uploading -= q[i].place == COMING


@compiled
def drop(c, s, q, w, b, i):
    """Forget the KV of i, parked: it will be computed again."""
    r = q[i]
    unlist_parked(c, s, q, w, b, i)
    s.free += r.blocks
    s.recomputed += r.kv
    r.blocks = 0
    r.kv = 0
    r.prefilling = 1
    r.place = NOWHERE


@compiled
def evict(c, s, q, w, b, i):
    """Free the blocks of i, parked on the device: once copied to the host, or at once if full."""
    r = q[i]
    if blocks(c, r.kv) > s.host_free:
        s.host_full += 1
        drop(c, s, q, w, b, i)
        return
    s.host_free -= blocks(c, r.kv)
    s.least_host_free = min(s.least_host_free, s.host_free)
    s.resident -= r.blocks
    s.leaving += r.blocks
    time = c.latency + r.kv * c.out_time
    s.out_free_at = min(max(s.now, s.out_free_at) + time, c.limit + 1)  # beyond: overflow
    s.out_busy += time
    s.swaps_out += 1
    s.tokens_out += r.kv
    r.place = LEAVING
    r.copied_at = s.out_free_at
    r.swapped_at = s.now
    w[GOING, s.out_last % len(q)] = i
    s.out_last += 1


@compiled
def bring_back(c, s, q, w, b, i):
    """Start the copy of i to the device, for which there are blocks."""
    r = q[i]
    take(s, r, blocks(c, r.kv))
    time = c.latency + r.kv * c.in_time
    s.in_free_at = min(max(s.now, s.in_free_at) + time, c.limit + 1)  # beyond: overflow
    s.in_busy += time
    s.swaps_in += 1
    s.tokens_in += r.kv
    r.place = COMING
    s.uploading += r.waits
    r.copied_at = s.in_free_at
    w[RETURNING, s.in_last % len(q)] = i
    s.in_last += 1


@compiled
def arrive(c, s, q, w, b):
    """Note the copies that have ended by now."""
    while s.out_first < s.out_last:
        r = q[w[GOING, s.out_first % len(q)]]
        if r.copied_at > s.now:
            break
        s.out_first += 1
        s.leaving -= r.blocks
        s.free += r.blocks
        r.blocks = 0
        r.place = HOST
    while s.in_first < s.in_last:
        r = q[w[RETURNING, s.in_first % len(q)]]
        if r.copied_at > s.now:
            break
        s.in_first += 1
        s.host_free += blocks(c, r.kv)
        r.swapped += r.copied_at - r.swapped_at
        r.place = DEVICE
        if r.waits:
            s.resident += r.blocks
            s.uploading -= 1


@compiled
def next_end(c, s, q, w, b, otherwise):
    """When the next copy ends, or ``otherwise`` if that is sooner."""
    if s.out_first < s.out_last:
        otherwise = min(otherwise, q[w[GOING, s.out_first % len(q)]].copied_at)
    if s.in_first < s.in_last:
        otherwise = min(otherwise, q[w[RETURNING, s.in_first % len(q)]].copied_at)
    return otherwise


@compiled
def last_resident(c, s, q, w, b, excepted):
    """Of those that wait with their KV on the device, the last in the order."""
    found = NONE
    for k in range(s.parked if s.resident > 0 else 0):
        i = w[PARKED, k]
        if q[i].place == DEVICE and i != excepted and (found == NONE or before(q, found, i)):
            found = i
    return found


@compiled
def first_swapped(c, s, q, w, b):
    """Of those whose KV is on the host, the first in the order."""
    found = NONE
    for k in range(s.parked):
        i = w[PARKED, k]
        if q[i].place == HOST and (found == NONE or before(q, i, found)):
            found = i
    return found
