"""Running requests: their order of admission, the next victim, and their KV growth."""

from ssjf.simulator.core import order, ring, swap
from ssjf.simulator.core.compiled import compiled
from ssjf.simulator.core.state import (
    COMING, DEFER, DEVICE, EWT, LAST, LEFT_OUT, NO, NONE, PARTIAL, RESIDENT, SWAP, VICTIMS,
    VICTIMS_PLACE, YES,
)  # fmt: skip

ROOM, PAUSED, GONE = range(3)


@compiled
def enter(m, requests, extra, tables, i):
    """Give i a slot; it is the last in the order of admission."""
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
            order.rise(tables, VICTIMS, m.running - 1, key, item, YES)


@compiled
def leave(m, requests, extra, tables, i):
    """Take i from its slot."""
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
            order.take_out(tables, VICTIMS, m.running, place, YES)


@compiled
def victim(m, requests, extra, tables):
    """The running request to be preempted first: the last in the policy's order.

    Scores in the heap may be old. None is too low, because scores fall in time unless an event
    raises them (``exceed``): the top of the heap is the victim once its score is up to date.
    """
    if not m.ranked:
        last = i = m.first_running
        while i != NONE:
            order.score(m, requests, extra, tables, i)
            if order.before(requests, last, i):
                last = i
            i = requests[i].after
        return last
    while True:
        top = tables[VICTIMS, 0]
        item, i = top.item, len(requests) - 1 - top.item
        key = ~order.sortable(order.score(m, requests, extra, tables, i))
        if key == top.key:
            return i
        order.sink(tables, VICTIMS, m.running, NO, key, item, YES)


@compiled
def exceed(m, requests, extra, tables, i, made):
    """Double the prediction of i, which has generated as many tokens as predicted."""
    x = extra[i]
    while x.estimate <= made:
        x.estimate *= 2
    key = ~order.sortable(order.score(m, requests, extra, tables, i))
    item = len(requests) - 1 - i
    place = tables[VICTIMS_PLACE, item].item
    if key < tables[VICTIMS, place].key:  # else the old score is still an upper bound
        order.rise(tables, VICTIMS, place, key, item, YES)


@compiled
def held_blocks(m, r, x):
    """Blocks that a running request holds now, before or after it grows in this step."""
    if r.since == 0:
        return x.blocks
    if r.reserved > 0:
        return swap.blocks(m, r.reserved)
    has_grown = x.order < m.cursor and x.left_out_at != m.round
    return swap.blocks(m, r.prompt + r.generated + m.step - r.since - 1 + has_grown)


@compiled
def preempt(m, requests, extra, tables, cells, i):
    """Preempt request i: take its slot, keep its KV on the device or drop it (recompute).

    Its tokens of this step return to the budget.
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
        swap.keep(m, extra, tables, i)
    else:
        swap.drop(m, r, x)
    order.wait(m, requests, extra, tables, i)


@compiled
def wanted(m, r, x):
    """(tokens, new blocks) that a running request needs in this step."""
    known = r.prompt + r.generated
    if r.since > 0:
        kv = known + m.step - r.since - 1
        used = kv & (m.block - 1) if m.shift >= 0 else kv % m.block  # tokens in its last block
        return 1, int(r.reserved == 0 and used == 0)
    tokens = min(known - x.kv, m.left)
    return tokens, max(swap.blocks(m, x.kv + tokens) - x.blocks, 0)


@compiled
def _preempt_one(m, requests, extra, tables, cells):
    """Free the blocks of the last resident or, if there is none, of the victim.

    False: not now, because the KV of the victim or of a waiting request is still coming back.
    """
    i = swap.find(m, requests, extra, tables, RESIDENT, m.residents, YES, NONE)
    if i == NONE:
        i = victim(m, requests, extra, tables)
        if m.uploading > 0 or requests[i].place == COMING:
            return False
        preempt(m, requests, extra, tables, cells, i)
    if requests[i].place == DEVICE:
        swap.evict(m, requests, extra, tables, i)
    return True


@compiled
def _make_room(m, requests, extra, tables, cells, i):
    """Get blocks for running request i: ROOM, PAUSED (until there are some) or GONE (preempted)."""
    while True:
        _, lacking = wanted(m, requests[i], extra[i])
        available = m.free - m.claimed
        if lacking <= available:
            return ROOM
        promised = m.on_preemption == DEFER or lacking <= available + m.leaving
        if promised or not _preempt_one(m, requests, extra, tables, cells):
            m.claimed += lacking
            m.paused += 1
            return PAUSED
        if requests[i].waits:
            return GONE


@compiled
def _leave_out(m, requests, extra, tables, i):
    """Let i, which decodes, have no token in this step."""
    extra[i].left_out_at = m.round
    tables[LEFT_OUT, m.left_out].item = i
    m.left_out += 1


@compiled
def in_order(m, requests, extra, tables, cells):
    """Schedule the running requests in order of admission, as vLLM v1's ``Scheduler.schedule``.

    Each gets its tokens and blocks. For lack of blocks others are preempted until there are enough,
    or until it is itself the victim: then the rest is left out of this step (not in 0.33).
    """
    m.left = m.budget
    i, room = m.first_running, ROOM
    while i != NONE and m.left > 0 and (room != GONE or m.goes_on):
        r, x = requests[i], extra[i]
        m.cursor = x.order
        if r.place == DEVICE:
            tokens, lacking = wanted(m, r, x)
            room, may_be_least = ROOM, r.since == 0
            if lacking > 0 and lacking > m.free - m.claimed:
                room, may_be_least = _make_room(m, requests, extra, tables, cells, i), True
                tokens, lacking = wanted(m, r, x)
            if room == ROOM:
                m.free -= lacking
                m.left -= tokens
                if r.since == 0:
                    x.blocks += lacking
                    x.tokens = tokens
                if may_be_least and lacking > 0:
                    m.least_free = min(m.least_free, m.free)
            elif room == PAUSED and r.since > 0:
                _leave_out(m, requests, extra, tables, i)
        i = r.after
    while i != NONE:
        if requests[i].since > 0:
            _leave_out(m, requests, extra, tables, i)
        i = requests[i].after
    m.cursor = LAST


@compiled
def grow(m, requests, extra, tables, cells, lacking):
    """Give running requests tokens and blocks, if some prefill or blocks are ``lacking``."""
    if m.partials == 1:  # it gets what decoding leaves, unless others have to wait for it
        i = tables[PARTIAL, 0].item
        r, x = requests[i], extra[i]
        tokens, more = wanted(m, r, x)
        known = r.prompt + r.generated
        simple = r.after == NONE or not m.listed or x.kv + tokens == known
        if simple and lacking + more <= m.free:
            x.tokens = tokens
            x.blocks += more
            m.free -= lacking + more
            m.left -= tokens
            return
    in_order(m, requests, extra, tables, cells)
