"""Running requests: their order of admission, the victim among them, and preemption."""

from ssjf.simulator.core import heap, order, ring, swap
from ssjf.simulator.core.compiled import compiled
from ssjf.simulator.core.state import (
    EWT,
    NO,
    NONE,
    PARTIAL,
    SWAP,
    VICTIMS,
    VICTIMS_PLACE,
    YES,
)


@compiled
def enter(m, requests, extra, tables, i):
    """i takes a slot, the last in the order of admission."""
    m.running += 1
    if m.listed:
        r, x = requests[i], extra[i]
        x.order = m.order
        m.order += 1
        r.before, r.after = m.last_running, NONE
        if m.last_running == NONE:
            m.first_running = i
        else:
            requests[m.last_running].after = i
        m.last_running = i
        if m.ranked:
            item, key = len(requests) - 1 - i, ~order.sortable(r.score)
            heap.rise(tables, VICTIMS, m.running - 1, key, item, YES)


@compiled
def leave(m, requests, extra, tables, i):
    """i leaves its slot."""
    m.running -= 1
    if m.listed:
        r = requests[i]
        if r.before == NONE:
            m.first_running = r.after
        else:
            requests[r.before].after = r.after
        if r.after == NONE:
            m.last_running = r.before
        else:
            requests[r.after].before = r.before
        if m.ranked:
            place = tables[VICTIMS_PLACE, len(requests) - 1 - i].item
            heap.take_out(tables, VICTIMS, m.running, place, YES)


@compiled
def victim(m, requests, extra, tables):
    """The running request to be preempted first: the last in the policy's order.

    Scores in the heap may be old. As they fall in time, and what raises one is an event
    (``exceed``), none is too low: the first is right once its own score is.
    """
    if not m.ranked:
        found = i = m.first_running
        while i != NONE:
            order.score(m, requests, extra, tables, i)
            if order.before(requests, found, i):
                found = i
            i = requests[i].after
        return found
    while True:
        top = tables[VICTIMS, 0]
        item, i = top.item, len(requests) - 1 - top.item
        key = ~order.sortable(order.score(m, requests, extra, tables, i))
        if key == top.key:
            return i
        heap.sink(tables, VICTIMS, m.running, NO, key, item, YES)


@compiled
def exceed(m, requests, extra, tables, i, made):
    """i has generated as many tokens as were predicted: the prediction doubles."""
    x = extra[i]
    while x.estimate <= made:
        x.estimate *= 2
    key = ~order.sortable(order.score(m, requests, extra, tables, i))
    item = len(requests) - 1 - i
    place = tables[VICTIMS_PLACE, item].item
    if key < tables[VICTIMS, place].key:  # else the old score, higher still, bounds it as well
        heap.rise(tables, VICTIMS, place, key, item, YES)


@compiled
def held_blocks(m, r, x):
    """Blocks of a running request, mid-step: does it have what it needs for this one?"""
    if r.since == 0:
        return x.blocks
    if r.reserved > 0:
        return swap.blocks(m, r.reserved)
    has_grown = x.order < m.cursor and x.left_out_at != m.round
    return swap.blocks(m, r.prompt + r.generated + m.step - r.since - 1 + has_grown)


@compiled
def preempt(m, requests, extra, tables, cells, i):
    """Take the slot of i: it waits again, its KV on the device, or dropped (recompute).

    What it was to compute in this step it does not.
    """
    r, x = requests[i], extra[i]
    held = held_blocks(m, r, x)
    if r.since > 0:
        m.left += x.order < m.cursor and x.left_out_at != m.round
        ring.stop_decoding(m, requests, extra, cells, i, YES)
        r.generated += m.step - r.since
        x.kv = r.prompt + r.generated - 1
        x.prefilled = 1
        r.since = 0
    else:
        m.left += x.tokens
        x.tokens = 0
        m.partials = swap.unlist(extra, tables, PARTIAL, m.partials, i)
    leave(m, requests, extra, tables, i)
    x.blocks = swap.blocks(m, x.kv)
    m.free += held - x.blocks
    r.preempted += 1
    m.preemptions += 1
    if m.on_preemption == SWAP or m.on_preemption == EWT:
        swap.keep(m, requests, extra, tables, i)
    else:
        swap.drop(m, r, x)
    order.wait(m, requests, extra, tables, i)
