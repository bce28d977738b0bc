"""Growth: the running requests get the tokens and blocks of a step, or give way."""

from ssjf.simulator.core import running, swap
from ssjf.simulator.core.compiled import compiled
from ssjf.simulator.core.state import (
    COMING, DEFER, DEVICE, LAST, LEFT_OUT, NONE, PARTIAL, RESIDENT, YES,
)  # fmt: skip

ROOM, PAUSED, GONE = range(3)


@compiled
def wanted(m, r, x):
    """(tokens, blocks) that a running request wants in this step."""
    known = r.prompt + r.generated
    if r.since > 0:
        kv = known + m.step - r.since - 1
        used = kv & (m.block - 1) if m.shift >= 0 else kv % m.block  # of its last block
        return 1, int(r.reserved == 0 and used == 0)
    tokens = min(known - x.kv, m.left)
    return tokens, max(swap.blocks(m, x.kv + tokens) - x.blocks, 0)


@compiled
def _preempt_one(m, requests, extra, tables, cells):
    """Blocks are wanted: those of the last resident or, with none, of the victim.

    False: that one's KV is still on its way here.
    """
    i = swap.find(m, requests, extra, tables, RESIDENT, m.residents, YES, NONE)
    if i == NONE:
        i = running.victim(m, requests, extra, tables)
        if m.uploading > 0 or requests[i].place == COMING:
            return False
        running.preempt(m, requests, extra, tables, cells, i)
    if requests[i].place == DEVICE:
        swap.evict(m, requests, extra, tables, i)
    return True


@compiled
def _make_room(m, requests, extra, tables, cells, i):
    """See that running request i has its blocks: ROOM, PAUSED (until then) or GONE (preempted)."""
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
    """i, which decodes, has no token in this step."""
    extra[i].left_out_at = m.round
    tables[LEFT_OUT, m.left_out].item = i
    m.left_out += 1


@compiled
def in_order(m, requests, extra, tables, cells):
    """Go through those that run in order of admission, as vLLM v1 does (``Scheduler.schedule``).

    Each gets its tokens and blocks; where there are none, others are preempted until there are or
    the asker was itself the victim: then the rest is left out of this step.
    """
    m.left = m.budget
    i = m.first_running
    room = ROOM
    while i != NONE and m.left > 0 and room != GONE:
        r, x = requests[i], extra[i]
        m.cursor = x.order
        if r.place == DEVICE:
            tokens, lacking = wanted(m, r, x)
            room = ROOM
            if lacking > 0 and lacking > m.free - m.claimed:
                room = _make_room(m, requests, extra, tables, cells, i)
                tokens, lacking = wanted(m, r, x)
                made_room = True
            else:
                made_room = r.since == 0
            if room == ROOM:
                m.free -= lacking
                m.left -= tokens
                if r.since == 0:
                    x.blocks += lacking
                    x.tokens = tokens
                if made_room and lacking > 0:
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
    """The tokens and blocks of those that run, where some prefill or blocks are ``lacking``."""
    if m.partials == 1:  # what those that decode leave is its, if nobody else has to wait for it
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
