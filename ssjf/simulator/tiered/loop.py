"""The serving loop: arrive, grow, admit, copy, advance, finish."""

import numpy as np

from ssjf.simulator.kernel.compiled import compiled
from ssjf.simulator.tiered import (
    admission,
    ahead,
    copies,
    growth,
    running,
    waiting,
)
from ssjf.simulator.tiered.state import (
    ANY,
    DEFER,
    DEVICE,
    EWT,
    FINISHED,
    LINEAR,
    NEEDS_SCORES,
    OVERFLOW,
    STUCK,
)


@compiled
def _order(c, s, q, w, b):
    """Scores of this moment; False: Python has to be asked first."""
    if c.kind == ANY and not s.asked:
        s.asked = 1
        if s.waiting > 0 or s.free <= s.running + c.budget // c.block:
            return False
    if c.kind == LINEAR or c.kind == ANY:
        waiting.reorder(c, s, q, w, b)
        s.bound = np.inf
    waiting.ring(c, s, q, w, b)
    return True


@compiled
def _begin(c, s):
    s.left = c.budget
    s.prefill = 0
    s.scheduled = 0
    s.context = 0
    s.paused = 0
    s.claimed = 0


@compiled
def _stall(c, s, q, w, b):
    """Nothing can run before a copy ends or somebody arrives: to that time (False: never)."""
    never = c.limit + 2
    until = q[s.next].ready if s.next < len(q) else never
    until = copies.next_end(c, s, q, w, b, until)
    if until == never:
        return False
    s.stalled += until - s.now
    s.now = until
    return True


@compiled
def _wait_for_copies(s):
    """They do not overlap with compute: all that were asked for come first."""
    until = max(s.now, s.out_free_at, s.in_free_at)
    s.stalled += until - s.now
    s.now = until


@compiled
def _advance(c, s):
    """The step takes its time: affine in prefill tokens, sequences and context read."""
    time = (
        c.step_time
        + c.sequence_time * s.scheduled
        + c.context_time * s.context
        + c.prefill_time * s.prefill
    )
    s.now += time
    s.busy += time


@compiled
def _schedule(c, s, q, w, b):
    """Who runs in this step; True if some were given up for it."""
    before = s.preemptions
    growth.grow(c, s, q, w, b)
    if s.preemptions == before and s.paused == 0 and s.waiting > 0:
        admission.admit(c, s, q, w, b)
    if c.on_preemption == EWT and s.parked > 0:
        ahead.copy_ahead(c, s, q, w, b)
    if s.scheduled == 0 and s.paused > 0 and c.on_preemption == DEFER:
        i = running.worst(c, s, q, w, b, -np.inf)
        running.park(c, s, q, w, b, i)
        if q[i].place == DEVICE:
            copies.drop(c, s, q, w, b, i)
    return s.preemptions > before


@compiled
def _serve(c, s, q, w, b):
    while s.done < len(q):
        copies.arrive(c, s, q, w, b)
        waiting.arrive(c, s, q, w, b)
        if s.running == 0 and s.waiting == 0:
            s.now = q[s.next].ready
            continue
        if not _order(c, s, q, w, b):
            return NEEDS_SCORES
        s.asked = 0
        _begin(c, s)
        given_up = _schedule(c, s, q, w, b)
        if s.scheduled > 0:
            if not c.overlap:
                _wait_for_copies(s)
            _advance(c, s)
            running.finish_step(c, s, q, w, b)
        elif not given_up and not _stall(c, s, q, w, b):
            return STUCK
        s.step += s.scheduled > 0 or given_up
        if max(s.now, s.out_free_at, s.in_free_at) > c.limit:
            return OVERFLOW
    return FINISHED


@compiled
def run(c, s, q, w, b):
    """Serve everything; returns FINISHED, OVERFLOW, NEEDS_SCORES (fill ``q["score"]`` of what
    waits and runs, and call again) or STUCK (a defect).
    """
    return _serve(c[0], s[0], q, w, b)
