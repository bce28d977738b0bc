"""Admission of waiting requests in the policy's order, and preemption to make room for them."""

from ssjf.simulator.core import order, ring, running, swap
from ssjf.simulator.core.compiled import compiled, inlined
from ssjf.simulator.core.state import (
    COMING, DEVICE, HOST, LEAVING, NONE, NOWHERE, PARTIAL, RESIDENT, SCHEDULED, WAITING, YES,
)  # fmt: skip


@compiled
def blocks_lacking(m, r, x):
    """Free blocks needed to admit a request: for its known tokens, or those reserved for it."""
    lacking = swap.blocks(m, max(r.prompt + r.generated, r.reserved))
    if r.place != NOWHERE:
        lacking -= x.blocks
    return lacking + m.watermark if m.running > 0 else lacking


@compiled
def _reclaimable(m, requests, extra, tables, i, enough):
    """Blocks of the running requests that i may displace (stops once there are enough)."""
    blocks = 0
    j = m.first_running
    while j != NONE and blocks < enough:
        r, x = requests[j], extra[j]
        if r.place == DEVICE and order.score(m, requests, extra, tables, j) > requests[i].score:
            blocks += running.held_blocks(m, r, x)
        j = r.after
    return blocks


@compiled
def _displace(m, requests, extra, tables, cells, i, lacking):
    """Preempt the victim for i, if its score is strictly higher and that can free enough blocks."""
    if not m.displaces or order.outranks_nobody(m, requests, tables, i):
        return False
    j = running.victim(m, requests, extra, tables)
    r, x = requests[j], extra[j]
    if r.score <= requests[i].score or r.place == COMING:
        return False
    lacking -= m.free + m.leaving + m.resident
    if requests[i].place == DEVICE:
        lacking += extra[i].blocks
    enough = running.held_blocks(m, r, x)
    if lacking > enough and lacking > _reclaimable(m, requests, extra, tables, i, lacking):
        return False
    running.preempt(m, requests, extra, tables, cells, j)
    return True


@compiled
def _make_way(m, requests, extra, tables, cells, i, lacking):
    """Free a slot or blocks for i, the first in the order; False: it has to wait."""
    if m.running < m.slots:
        if lacking <= m.free + m.leaving:
            return False  # enough blocks will be free when their copies end
        resident = swap.find(m, requests, extra, tables, RESIDENT, m.residents, YES, i)
        if resident != NONE:
            swap.evict(m, requests, extra, tables, resident)
            return True
    return _displace(m, requests, extra, tables, cells, i, lacking)


@inlined
def _enter(m, requests, extra, tables, cells, i):
    """Give i a slot; it runs in this step unless its KV is on the host or on its way."""
    r, x = requests[i], extra[i]
    kv, held = 0, 0
    if r.place == NOWHERE:
        r.place = DEVICE
    else:
        if r.place == DEVICE:
            swap.release(m, extra, tables, i)
        elif r.place == HOST:
            swap.bring_back(m, requests, extra, tables, i)
        else:
            m.uploading -= 1
        kv, held = x.kv, x.blocks
    running.enter(m, requests, extra, tables, i)
    known = r.prompt + r.generated
    tokens = min(known - kv, m.left) if r.place == DEVICE else 0
    blocks = swap.blocks(m, max(kv + tokens, r.reserved))
    m.free -= blocks - held
    m.left -= tokens
    if tokens == known:
        m.prefill += tokens
    if tokens == known or (tokens > 0 and x.prefilled):
        ring.start_decoding(m, requests, extra, cells, i, m.step)
    else:
        x.blocks = blocks
        x.tokens = tokens
        if tokens > 0:
            m.partials = swap.enlist(extra, tables, PARTIAL, m.partials, i)


@inlined
def admit(m, requests, extra, tables, times, cells):
    """Admit requests in the policy's order while slots, token budget and blocks allow."""
    while m.waiting > 0 and m.left > 0 and (m.running < m.slots or m.displaces):
        place = order.first(m, requests, extra, tables)
        i = tables[WAITING, place].item
        r = requests[i]
        if r.place == LEAVING:
            return
        computes = r.place == NOWHERE or r.place == DEVICE
        if not m.chunked and computes and r.prompt + r.generated - extra[i].kv > m.left:
            return
        lacking = blocks_lacking(m, r, extra[i])
        if m.running == m.slots or lacking > m.free:
            if not _make_way(m, requests, extra, tables, cells, i, lacking):
                m.blocked = m.running < m.slots
                return
            continue
        order.stop_waiting(m, requests, tables, place)
        if r.preempted == 0:
            times[SCHEDULED, i] = m.now
        _enter(m, requests, extra, tables, cells, i)
        m.least_free = min(m.least_free, m.free)
