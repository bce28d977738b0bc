"""The jump over quiet steps: those in which nothing but growth can happen, in closed form."""

from ssjf.simulator.core import admission, ring
from ssjf.simulator.core.compiled import compiled
from ssjf.simulator.core.state import EWT, LINEAR, TIMERS, WAITING


@compiled
def _is_quiet(m, requests, extra, tables):
    """Will those that run go on, and those that wait go on waiting, until an event or arrival?"""
    if m.decoding == 0 or m.decoding < m.running or m.left_out > 0:
        return False
    if m.out_first < m.out_last or m.in_first < m.in_last:
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
    return not m.displaces or admission.outranks_nobody(
        m, requests, extra, tables, tables[WAITING, 0].item
    )


@compiled
def _steps_with_blocks(m, cells, most):
    """How many of the next ``most`` steps the free blocks last."""
    free = m.free
    rounds = free // m.decoding
    if m.reserves or rounds * m.block >= most:
        return most
    free -= rounds * m.decoding
    steps = rounds * m.block
    while steps < most:
        free -= cells[ring.phase(m, m.step + steps)]
        if free < 0:
            break
        steps += 1
    return steps


@compiled
def _elapsed(steps, first, increment):
    return steps * first + increment * (steps * (steps - 1) // 2)


@compiled
def _steps_until(delay, most, first, increment):
    """The fewest steps (at most ``most``) that take at least ``delay``: bisection."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        if _elapsed(middle, first, increment) >= delay:
            high = middle
        else:
            low = middle + 1
    return low


@compiled
def jump(m, requests, extra, tables, cells):
    """Take at once all coming steps that are quiet."""
    if not _is_quiet(m, requests, extra, tables):
        return
    steps = ring.steps_to_event(m, cells)
    if steps > 0:
        steps = _steps_with_blocks(m, cells, steps)
    if steps == 0:
        return
    context = m.kv_offset + m.decoding * m.step
    first = m.step_time + m.sequence_time * m.decoding + m.context_time * context
    increment = m.context_time * m.decoding
    until = m.limit
    if m.running < m.slots or m.displaces:
        until = min(until, m.next_ready)
    if m.waiting > 0 and m.timers > 0 and (m.running < m.slots or m.displaces):
        until = min(until, tables[TIMERS, 0].key)
    if until - m.now < _elapsed(steps, first, increment):
        steps = _steps_until(until - m.now, steps, first, increment)
    time = _elapsed(steps, first, increment)
    m.now += time
    m.busy += time
    if not m.reserves:
        rounds = steps // m.block
        m.free -= rounds * m.decoding
        for step in range(m.step + rounds * m.block, m.step + steps):
            m.free -= cells[ring.phase(m, step)]
        m.least_free = min(m.least_free, m.free)
    m.step += steps
