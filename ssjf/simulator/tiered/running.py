"""Running requests: their tokens in a step, the worst of them, and giving one up."""

import numpy as np

from ssjf.simulator.kernel.compiled import compiled
from ssjf.simulator.tiered import copies, waiting
from ssjf.simulator.tiered.scores import before, score
from ssjf.simulator.tiered.state import DEVICE, NONE, RECOMPUTE, RUNNING


@compiled
def tokens_wanted(s, r):
    """Tokens of a running request in this step: one, or what the budget leaves of its prefill."""
    return min(r.prompt + r.made - r.kv, s.left)


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
