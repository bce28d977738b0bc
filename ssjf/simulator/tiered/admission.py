"""From waiting to running, in the policy's order; and who has to make way."""

from ssjf.simulator.kernel.compiled import compiled
from ssjf.simulator.tiered import copies, running, waiting
from ssjf.simulator.tiered.state import (
    COMING,
    DEFER,
    DEVICE,
    HOST,
    LEAVING,
    NONE,
    NOWHERE,
    RUNNING,
    WAITING,
)


@compiled
def blocks_lacking(c, s, r):
    """Blocks that must be free to admit: for all known tokens, or for what is reserved."""
    wanted = copies.blocks(c, max(r.prompt + r.made, r.reserved)) - r.blocks
    return wanted + (c.watermark if s.running > 0 else 0)


@compiled
def _displace(c, s, q, w, b, i, wanted):
    """Park the worst running request for i, if its score is strictly higher and that will do."""
    if not c.preempts or c.on_preemption == DEFER or q[i].score >= s.bound:
        return False
    victim = running.worst(c, s, q, w, b, q[i].score)
    if victim == NONE or q[victim].score <= q[i].score or q[victim].place == COMING:
        return False
    others = s.resident - (q[i].blocks if q[i].place == DEVICE else 0)
    if wanted > s.free + s.leaving + others + s.reclaim:
        return False
    running.park(c, s, q, w, b, victim)
    return True


@compiled
def _make_way(c, s, q, w, b, i, wanted):
    """Free a slot or blocks for i, the first in the order; False: it has to wait."""
    if s.running < c.slots:
        if wanted <= s.free + s.leaving:
            return False  # they will be free when their copies end
        resident = copies.last_resident(c, s, q, w, b, i)
        if resident != NONE:
            copies.evict(c, s, q, w, b, resident)
            return True
    return _displace(c, s, q, w, b, i, wanted)


@compiled
def _enter(c, s, q, w, b, i):
    """i takes a slot; it runs in this step unless its KV has yet to come back."""
    r = q[i]
    waiting.remove_first(c, s, q, w, b)
    if r.place != NOWHERE:
        copies.unlist_parked(c, s, q, w, b, i)
    w[RUNNING, s.running] = i
    s.running += 1
    s.bound = max(s.bound, r.score)
    if r.scheduled_at < 0:
        r.scheduled_at = s.now
    if r.place == HOST:
        copies.bring_back(c, s, q, w, b, i)
    if r.place == NOWHERE:
        r.place = DEVICE
    tokens = running.tokens_wanted(s, r) if r.place == DEVICE else 0
    wanted = copies.blocks(c, max(r.kv + tokens, r.reserved)) - r.blocks
    copies.take(s, r, max(wanted, 0))
    if tokens > 0:
        running.schedule(s, r, tokens)


@compiled
def admit(c, s, q, w, b):
    """Take requests in policy order while slots, token budget and blocks allow."""
    while s.waiting > 0 and s.left > 0:
        i = w[WAITING, 0]
        r = q[i]
        if r.place == LEAVING:
            return
        returns = r.place == HOST or r.place == COMING
        if not c.chunked and not returns and r.prompt + r.made - r.kv > s.left:
            return
        wanted = blocks_lacking(c, s, r)
        if s.running == c.slots or wanted > s.free:
            if not _make_way(c, s, q, w, b, i, wanted):
                return
        else:
            _enter(c, s, q, w, b, i)
