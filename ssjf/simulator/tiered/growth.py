"""Growth: the running requests get the tokens and blocks of a step, or give way."""

import numpy as np

from ssjf.simulator.kernel.compiled import compiled
from ssjf.simulator.tiered import copies, running
from ssjf.simulator.tiered.state import (
    COMING,
    DEFER,
    DEVICE,
    NONE,
    RUNNING,
    UNLIMITED,
)

ROOM, PAUSED, GONE = range(3)


@compiled
def _blocks_wanted(c, r, tokens):
    """Blocks it lacks for so many more tokens."""
    if r.kv + tokens <= r.blocks * c.block:
        return 0
    return copies.blocks(c, r.kv + tokens) - r.blocks


@compiled
def _give_up_one(c, s, q, w, b):
    """Blocks are wanted: those of the last resident or, with none, of the worst that runs.

    False: that one's KV is still on its way here.
    """
    i = copies.last_resident(c, s, q, w, b, NONE)
    if i == NONE:
        i = running.worst(c, s, q, w, b, -np.inf)
        if s.uploading > 0 or q[i].place == COMING:
            return False
        running.park(c, s, q, w, b, i)
    if q[i].place == DEVICE:
        copies.evict(c, s, q, w, b, i)
    return True


@compiled
def _make_room(c, s, q, w, b, i):
    """See that running request i has its blocks: ROOM, PAUSED (until then), or GONE (parked)."""
    while True:
        wanted = _blocks_wanted(c, q[i], running.tokens_wanted(s, q[i]))
        if wanted <= s.free - s.claimed:
            return ROOM
        promised = c.on_preemption == DEFER or wanted <= s.free - s.claimed + s.leaving
        if promised or not _give_up_one(c, s, q, w, b):
            s.claimed += wanted
            s.paused += 1
            return PAUSED
        if q[i].waits:
            return GONE


@compiled
def _decode(c, s, q, w, b):
    """One token each, from the cursor on to one that prefills or for which room must be made.

    The rule of ``_grow_one`` and ``_make_room``, told again without function calls: most of a
    simulation's time is spent here.
    """
    left, context, free, paused = s.left, s.context, s.free - s.claimed, 0
    promised = UNLIMITED if c.on_preemption == DEFER else s.leaving
    k = s.cursor
    while k < s.running and left > 0:
        r = q[w[RUNNING, k]]
        if r.place != DEVICE or r.prefilling:
            break
        if r.kv == r.blocks * c.block:
            if free + promised <= 0:
                break
            free -= 1
            if free < 0:  # claimed, and not there yet
                paused += 1
                k += 1
                continue
            r.blocks += 1
        r.tokens = 1
        left -= 1
        context += r.kv + 1
        k += 1
    s.paused += paused
    s.claimed += paused
    s.left, s.context, s.free = left, context, free + s.claimed
    s.scheduled += k - s.cursor - paused
    s.cursor = k


@compiled
def _grow_one(c, s, q, w, b, i):
    """The tokens of i, and blocks for them; False: i is gone, and the others are left out."""
    r = q[i]
    if r.place != DEVICE:
        return True
    wanted = _blocks_wanted(c, r, running.tokens_wanted(s, r))
    if wanted > 0:
        if wanted > s.free - s.claimed:
            room = _make_room(c, s, q, w, b, i)
            if room != ROOM:
                return room == PAUSED
        copies.take(s, r, _blocks_wanted(c, r, running.tokens_wanted(s, r)))
    running.schedule(s, r, running.tokens_wanted(s, r))
    return True


@compiled
def grow(c, s, q, w, b):
    """The tokens of those that run, in order of admission, as vLLM v1 does it."""
    s.cursor = 0
    _decode(c, s, q, w, b)
    while s.cursor < s.running and s.left > 0:
        if not _grow_one(c, s, q, w, b, w[RUNNING, s.cursor]):
            break
        s.cursor += 1
        _decode(c, s, q, w, b)
    s.least_free = min(s.least_free, s.free)
