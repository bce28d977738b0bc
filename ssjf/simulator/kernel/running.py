"""Running requests: the list in admission order, their KV blocks, preemption.

A decoding request i that produced ``generated[i]`` tokens before step ``since[i]`` holds
``prompt + generated + (step - since)`` tokens of KV in step ``step``.
"""

import numpy as np

from ssjf.simulator.kernel.compiled import compiled, inlined
from ssjf.simulator.kernel import ring, waiting
from ssjf.simulator.kernel.state import (
    AFTER, BEFORE, BLOCK, BUDGET, CONTEXT, DECODING, FIRST_RUNNING, FLAGS, FREE, GENERATED,
    IS_HELD, KV_OFFSET, LAST_RUNNING, LEFT, LISTED, NONE, PARTIAL, PARTIAL_DONE, PREEMPTED,
    PREEMPTIONS, PREFILL, PROMPT, REGISTERS, SCHEDULED, SHIFT, SINCE, STEP,
)  # fmt: skip


@inlined
def blocks(c, s, q, f, e, tokens):
    """Blocks that hold so many tokens (a shift where a block is a power of two)."""
    if c[SHIFT] >= 0:
        return (tokens + c[BLOCK] - 1) >> c[SHIFT]
    return (tokens + c[BLOCK] - 1) // c[BLOCK]


@inlined
def phase(c, s, q, f, e, step):
    """The cell of the growth histogram for a step (of any sign)."""
    return step & (c[BLOCK] - 1) if c[SHIFT] >= 0 else step % c[BLOCK]


@inlined
def known_tokens(c, s, q, f, e, i):
    """What must be prefilled when i is admitted: its prompt and what it generated before."""
    return q[PROMPT, i] + q[GENERATED, i]


@inlined
def kv_tokens(c, s, q, f, e, i, step):
    return known_tokens(c, s, q, f, e, i) + step - q[SINCE, i]


@inlined
def append(c, s, q, f, e, i):
    """To the end of the running list."""
    if not c[LISTED]:
        return
    last = s[LAST_RUNNING]
    q[BEFORE, i] = last
    q[AFTER, i] = NONE
    if last == NONE:
        s[FIRST_RUNNING] = i
    else:
        q[AFTER, last] = i
    s[LAST_RUNNING] = i


@inlined
def remove(c, s, q, f, e, i):
    """From the running list."""
    if not c[LISTED]:
        return
    before, after = q[BEFORE, i], q[AFTER, i]
    if before == NONE:
        s[FIRST_RUNNING] = after
    else:
        q[AFTER, before] = after
    if after == NONE:
        s[LAST_RUNNING] = before
    else:
        q[BEFORE, after] = before


@inlined
def _phase(c, s, q, f, e, i):
    """The cell of the growth histogram: the steps (mod block) at which i opens a block."""
    return phase(c, s, q, f, e, q[SINCE, i] - known_tokens(c, s, q, f, e, i) + 1)


@inlined
def _decode_since(c, s, q, f, e, i, step):
    """Put i into the aggregates and the ring, its prefill having ended in ``step``."""
    q[SINCE, i] = step
    s[DECODING] += 1
    s[KV_OFFSET] += known_tokens(c, s, q, f, e, i) - step
    s[REGISTERS + _phase(c, s, q, f, e, i)] += 1
    ring.link(c, s, q, f, e, i, ring.event_step(c, s, q, f, e, i))


@inlined
def start_decoding(c, s, q, f, e, i):
    """The prefill of i ends in this step: from the next on it grows by a token a step."""
    _decode_since(c, s, q, f, e, i, s[STEP])


@inlined
def stop_decoding(c, s, q, f, e, i):
    """Take i out of the aggregates (not out of the running list or the ring)."""
    s[DECODING] -= 1
    s[KV_OFFSET] -= known_tokens(c, s, q, f, e, i) - q[SINCE, i]
    s[REGISTERS + _phase(c, s, q, f, e, i)] -= 1


@inlined
def continue_prefill(c, s, q, f, e):
    """The next chunk of the one unfinished prefill (0 if there is none)."""
    i = s[PARTIAL]
    return min(known_tokens(c, s, q, f, e, i) - s[PARTIAL_DONE], s[LEFT]) if i != NONE else 0


@inlined
def take_chunk(c, s, q, f, e, chunk):
    """The unfinished prefill advances by a chunk, for which it has its blocks."""
    i = s[PARTIAL]
    s[PARTIAL_DONE] += chunk
    s[LEFT] -= chunk
    s[PREFILL] += chunk
    s[SCHEDULED] += 1
    if s[PARTIAL_DONE] == known_tokens(c, s, q, f, e, i):
        s[PARTIAL] = NONE
        start_decoding(c, s, q, f, e, i)
        s[SCHEDULED] -= 1  # counted with those that decode
    else:
        s[CONTEXT] += s[PARTIAL_DONE]


@compiled
def preempt(c, s, q, f, e, i, grown):
    """Give up i: free its blocks; it waits again with all it generated to be recomputed.

    ``grown``: its block for this step has been allotted already.
    """
    if i == s[PARTIAL]:
        s[FREE] += blocks(c, s, q, f, e, s[PARTIAL_DONE])
        s[PARTIAL] = NONE
    else:
        ring.unlink(c, s, q, f, e, i, ring.event_step(c, s, q, f, e, i))
        stop_decoding(c, s, q, f, e, i)
        s[FREE] += blocks(c, s, q, f, e, kv_tokens(c, s, q, f, e, i, s[STEP] - (0 if grown else 1)))
        q[GENERATED, i] += s[STEP] - q[SINCE, i]
    remove(c, s, q, f, e, i)
    q[PREEMPTED, i] += 1
    s[PREEMPTIONS] += 1
    waiting.add(c, s, q, f, e, i)


@compiled
def stall(c, s, q, f, e, i):
    """A decoding request is left out of this step: its whole course moves a step later."""
    ring.unlink(c, s, q, f, e, i, ring.event_step(c, s, q, f, e, i))
    stop_decoding(c, s, q, f, e, i)
    _decode_since(c, s, q, f, e, i, q[SINCE, i] + 1)


@compiled
def blocks_wanted(c, s, q, f, e, i):
    """Blocks that running request i needs for this step, and the chunk if it prefills."""
    if i == s[PARTIAL]:
        chunk = continue_prefill(c, s, q, f, e)
        done = s[PARTIAL_DONE]
        return blocks(c, s, q, f, e, done + chunk) - blocks(c, s, q, f, e, done), chunk
    return np.int64((kv_tokens(c, s, q, f, e, i, s[STEP]) - 1) % c[BLOCK] == 0), np.int64(0)


@compiled
def _stands_before(c, s, q, f, e, i, j):
    """Is i ahead of j in the running list?"""
    k = q[BEFORE, j]
    while k != NONE and k != i:
        k = q[BEFORE, k]
    return k == i


@compiled
def _make_room(c, s, q, f, e, i):
    """Preempt the worst until i has its blocks (True) or is itself preempted (False)."""
    while blocks_wanted(c, s, q, f, e, i)[0] > s[FREE]:
        victim = waiting.worst_running(c, s, q, f, e)
        grown = _stands_before(c, s, q, f, e, victim, i)
        preempt(c, s, q, f, e, victim, grown)
        s[LEFT] += grown
        if victim == i:
            return False
    return True


@compiled
def grow_one_by_one(c, s, q, f, e):
    """Blocks run short: go through the running list as vLLM v1 does (``Scheduler.schedule``).

    Each in turn gets its block; where there is none, the worst running request is preempted,
    until the block is there or the asker was itself the worst: then the rest of the list is
    left out of this step.
    """
    s[LEFT] = c[BUDGET]
    i = s[FIRST_RUNNING]
    room = True
    while i != NONE:
        if q[FLAGS, i] & IS_HELD:
            i = q[AFTER, i]
            continue
        if room:
            room = _make_room(c, s, q, f, e, i)
            following = q[AFTER, i]
            if room:
                wanted, chunk = blocks_wanted(c, s, q, f, e, i)
                s[FREE] -= wanted
                if i == s[PARTIAL]:
                    take_chunk(c, s, q, f, e, chunk)
                else:
                    s[LEFT] -= 1
        else:
            following = q[AFTER, i]
            if i != s[PARTIAL]:
                s[SCHEDULED] -= 1
                stall(c, s, q, f, e, i)
                s[CONTEXT] -= kv_tokens(c, s, q, f, e, i, s[STEP])
        i = following
