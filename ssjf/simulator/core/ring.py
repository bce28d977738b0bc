"""Events and block growth of the coming steps, and the jump over steps without events.

Bucket ``step % size`` of the ring lists the requests with an event in that step. Each decoding
request has one next event: its first token, its last, or the one that exceeds its prediction. The
ring is followed by a bitmap of its non-empty buckets and by the histogram of growth: how many
decoding requests open a new block in a step, by step modulo block size. Steps with nothing but
growth are taken at once, in closed form (``jump``).
"""

import math

import numpy as np

from ssjf.simulator.core import order
from ssjf.simulator.core.compiled import compiled
from ssjf.simulator.core.state import EWT, LINEAR, NEVER, NONE, TIMERS, WAITING

ONE = np.uint64(1)


@compiled
def phase(m, step):
    """The cell of the histogram of growth for a step (of any sign)."""
    cell = step & (m.block - 1) if m.shift >= 0 else step % m.block
    return m.growth_at + cell


@compiled
def _bucket(m, r, x):
    """The bucket of a decoding request's next event."""
    tokens = r.total
    if not r.started:
        tokens = m.lead + 1
    elif m.follows and x.estimate < tokens:
        tokens = math.ceil(x.estimate)
    return (r.since + tokens - r.generated - 1) & (m.ring_size - 1)


@compiled
def link(m, requests, extra, cells, i):
    """Add the next event of request i to the ring."""
    bucket = _bucket(m, requests[i], extra[i])
    requests[i].link = cells[bucket]
    cells[bucket] = i
    cells[m.ring_size + (bucket >> 6)] |= 1 << (bucket & 63)


@compiled
def start_decoding(m, requests, extra, cells, i, step):
    """Let i decode from this step on; its KV then is ``prompt + generated`` tokens."""
    r = requests[i]
    known = r.prompt + r.generated
    r.since = step
    m.decoding += 1
    m.kv_offset += known - step
    if r.reserved == 0:
        cells[phase(m, step - known + 1)] += 1
    link(m, requests, extra, cells, i)


@compiled
def stop_decoding(m, requests, extra, cells, i, linked):
    """Remove i from the counts of decoding requests, and its event if ``linked``."""
    r = requests[i]
    known = r.prompt + r.generated
    m.decoding -= 1
    m.kv_offset -= known - r.since
    if r.reserved == 0:
        cells[phase(m, r.since - known + 1)] -= 1
    if not linked:
        return
    bucket = _bucket(m, r, extra[i])
    j = cells[bucket]
    if j != i:
        while requests[j].link != i:
            j = requests[j].link
        requests[j].link = r.link
        return
    cells[bucket] = r.link
    if r.link == NONE:
        cells[m.ring_size + (bucket >> 6)] &= ~(1 << (bucket & 63))


@compiled
def _steps_to_event(m, cells):
    """Number of steps before the next event (there must be one)."""
    bucket = m.step & (m.ring_size - 1)
    ahead = 0
    word = np.uint64(cells[m.ring_size + (bucket >> 6)]) >> np.uint64(bucket & 63)
    while word == 0:
        ahead += 64 - (bucket & 63)
        bucket = (((bucket >> 6) + 1) << 6) & (m.ring_size - 1)
        word = np.uint64(cells[m.ring_size + (bucket >> 6)])
    while word & ONE == 0:
        word >>= ONE
        ahead += 1
    return ahead


@compiled
def _is_quiet(m, requests, tables):
    """Will no request be admitted, preempted or delayed until an event or arrival?"""
    if m.decoding == 0 or m.decoding < m.running or m.left_out > 0 or m.copy_ends < NEVER:
        return False
    if m.on_preemption == EWT and m.residents + m.swapped > 0:
        return False
    if m.waiting == 0:
        return True
    full = m.running == m.slots
    if not full and (not m.blocked or m.residents > 0):
        return False
    if m.kind >= LINEAR:
        return full and not m.displaces
    return not m.displaces or order.outranks_nobody(m, requests, tables, tables[WAITING, 0].item)


@compiled
def _steps_with_blocks(m, cells, most):
    """Number of steps, of the next ``most``, for which the free blocks suffice."""
    free = m.free
    rounds = free // m.decoding
    if m.reserves or rounds * m.block >= most:
        return most
    free -= rounds * m.decoding
    steps = rounds * m.block
    while steps < most:
        free -= cells[phase(m, m.step + steps)]
        if free < 0:
            break
        steps += 1
    return steps


@compiled
def _elapsed(steps, first, increment):
    return steps * first + increment * (steps * (steps - 1) // 2)


@compiled
def jump(m, requests, tables, cells):
    """Take all coming quiet steps at once."""
    if not _is_quiet(m, requests, tables):
        return
    steps = _steps_with_blocks(m, cells, _steps_to_event(m, cells))
    if steps == 0:
        return
    context = m.kv_offset + m.decoding * m.step
    first = m.step_time + m.sequence_time * m.decoding + m.context_time * context
    increment = m.context_time * m.decoding
    m.quiet_until = m.now + _elapsed(steps, first, increment)
    until = min(m.limit, m.stop_at)
    if m.running < m.slots or m.displaces:
        until = min(until, m.next_ready)
    if m.waiting > 0 and m.timers > 0 and (m.running < m.slots or m.displaces):
        until = min(until, tables[TIMERS, 0].key)
        m.quiet_until = min(m.quiet_until, until)
    if until - m.now < _elapsed(steps, first, increment):
        fewest = 0  # steps that reach it, by bisection
        while fewest < steps:
            middle = (fewest + steps) // 2
            if _elapsed(middle, first, increment) >= until - m.now:
                steps = middle
            else:
                fewest = middle + 1
        if m.now + _elapsed(steps, first, increment) > m.stop_at:
            steps -= 1  # the step that passes it is not part of the jump
    time = _elapsed(steps, first, increment)
    m.now += time
    m.busy += time
    if not m.reserves:
        rounds = steps // m.block
        m.free -= rounds * m.decoding
        for step in range(m.step + rounds * m.block, m.step + steps):
            m.free -= cells[phase(m, step)]
        m.least_free = min(m.least_free, m.free)
    m.step += steps
