"""Running requests: their tokens and blocks in a step, and giving one up."""

import numpy as np

from ssjf.engine.kernel.compiled import compiled
from ssjf.engine.tiered import copies, waiting
from ssjf.engine.tiered.scores import before, score
from ssjf.engine.tiered.state import (
    COMING,
    DEFER,
    DEVICE,
    NONE,
    RECOMPUTE,
    RUNNING,
    UNLIMITED,
)

ROOM, PAUSED, GONE = range(3)


@compiled
def tokens_wanted(s, r):
    """Tokens of a running request in this step: one, or what the budget leaves of its prefill."""
    return min(r.prompt + r.made - r.kv, s.left)


@compiled
def blocks_wanted(c, r, tokens):
    """Blocks it lacks for so many more tokens."""
    if r.kv + tokens <= r.blocks * c.block:
        return 0
    return copies.blocks(c, r.kv + tokens) - r.blocks


@compiled
def schedule(s, r, tokens):
    """So many tokens of the request are computed in this step."""
    r.tokens = tokens
    s.left -= tokens
    s.scheduled += 1
    s.context += r.kv + tokens
    if r.prefilling:
        s.prefill += tokens


@compiled
def _unschedule(s, r):
    if r.tokens > 0:
        s.left += r.tokens
        s.scheduled -= 1
        s.context -= r.kv + r.tokens
        if r.prefilling:
            s.prefill -= r.tokens
        r.tokens = 0


@compiled
def park(c, s, q, w, b, i):
    """Give up the slot of i: it waits again, its KV on the device, or dropped (recompute)."""
    place = 0
    while w[RUNNING, place] != i:
        place += 1
    s.running -= 1
    for k in range(place, s.running):
        w[RUNNING, k] = w[RUNNING, k + 1]
    if place < s.cursor:
        s.cursor -= 1
    r = q[i]
    _unschedule(s, r)
    kept = copies.blocks(c, r.kv)
    s.free += r.blocks - kept
    r.blocks = kept
    r.preempted += 1
    s.preemptions += 1
    copies.list_parked(c, s, q, w, b, i)
    if c.on_preemption == RECOMPUTE:
        copies.drop(c, s, q, w, b, i)
    waiting.add(c, s, q, w, b, i)


@compiled
def worst(c, s, q, w, b, than):
    """The running request that the policy would give up first.

    Notes the highest score of all, ``s.bound``, and how many blocks are held on the device by
    those whose score is above ``than``, ``s.reclaim``.
    """
    found = NONE
    s.reclaim = 0
    s.bound = -np.inf
    for k in range(s.running):
        i = w[RUNNING, k]
        q[i].score = score(c, s, q, w, b, i)
        s.bound = max(s.bound, q[i].score)
        if q[i].score > than and q[i].place == DEVICE:
            s.reclaim += q[i].blocks
        if found == NONE or before(q, found, i):
            found = i
    return found


@compiled
def _give_up_one(c, s, q, w, b):
    """Blocks are wanted: those of the last resident or, with none, of the worst that runs.

    False: that one's KV is still on its way here.
    """
    i = copies.last_resident(c, s, q, w, b, NONE)
    if i == NONE:
        i = worst(c, s, q, w, b, -np.inf)
        if s.uploading > 0 or q[i].place == COMING:
            return False
        park(c, s, q, w, b, i)
    if q[i].place == DEVICE:
        copies.evict(c, s, q, w, b, i)
    return True


@compiled
def _make_room(c, s, q, w, b, i):
    """See that running request i has its blocks: ROOM, PAUSED (until then), or GONE (parked)."""
    while True:
        wanted = blocks_wanted(c, q[i], tokens_wanted(s, q[i]))
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
    wanted = blocks_wanted(c, r, tokens_wanted(s, r))
    if wanted > 0:
        if wanted > s.free - s.claimed:
            room = _make_room(c, s, q, w, b, i)
            if room != ROOM:
                return room == PAUSED
        copies.take(s, r, blocks_wanted(c, r, tokens_wanted(s, r)))
    schedule(s, r, tokens_wanted(s, r))
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


@compiled
def finish_step(c, s, q, w, b):
    """The step is over: tokens are there, some their request's last."""
    kept = 0
    for k in range(s.running):
        i = w[RUNNING, k]
        r = q[i]
        if r.tokens > 0:
            r.kv += r.tokens
            r.tokens = 0
            if r.kv == r.prompt + r.made:
                r.prefilling = 0
                r.made += 1
                if r.made == c.lead + 1:
                    r.first_at = s.now
                if r.estimate <= r.made:
                    _outlive(c, s, q, w, b, i)
                if r.made == r.total:
                    s.free += r.blocks
                    r.blocks = 0
                    r.finished_at = s.now
                    s.done += 1
                    continue
        w[RUNNING, kept] = i
        kept += 1
    s.running = kept


@compiled
def _outlive(c, s, q, w, b, i):
    """The prediction of i is outlived: it doubles."""
    while q[i].estimate <= q[i].made:
        q[i].estimate *= 2
    s.bound = max(s.bound, score(c, s, q, w, b, i))
