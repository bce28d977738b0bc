"""The serving loop: arrive, grow, admit, copy, advance, finish."""

from ssjf.simulator.core import admission, ahead, order, ring, running, swap
from ssjf.simulator.core.compiled import compiled, entry, inlined
from ssjf.simulator.core.state import (
    ANY, DEFER, FINISHED, FINISHED_AT, FIRST, LAST, LEFT_OUT, NEEDS_SCORES, NEVER, NO, NONE,
    OVERFLOW, PARTIAL, READY, STUCK, YES,
)  # fmt: skip


@compiled
def _lacks_scores(m, requests, extra, tables, cells):
    """Does this step need scores from Python (ANY) that it does not have yet?"""
    if m.asked:
        return False
    lacking = cells[ring.phase(m, m.step)]
    if m.partials > 0:
        i = tables[PARTIAL, 0].item
        lacking += running.wanted(m, requests[i], extra[i])[1]
    short = lacking > m.free
    if m.plain:
        m.asked = short or (m.waiting > 1 and m.running < m.slots)
    else:
        m.asked = m.waiting > 0 or m.free <= m.running + m.budget // m.block
    m.asked_running = short or not m.plain
    return m.asked


@inlined
def _tally(m, requests, extra, tables):
    """Count the sequences of this step, and the tokens that they read and prefill."""
    m.scheduled = m.decoding
    m.context = m.kv_offset + m.decoding * m.step
    for place in range(m.left_out):
        i = tables[LEFT_OUT, place].item
        r = requests[i]
        if r.since > 0:
            m.scheduled -= 1
            m.context -= r.prompt + r.generated + m.step - r.since
    for place in range(m.partials):
        x = extra[tables[PARTIAL, place].item]
        if x.tokens > 0:
            m.scheduled += 1
            m.context += x.kv + x.tokens
            m.prefill += x.tokens


@compiled
def _settle(m, requests, extra, tables, cells):
    """After a step, delay the requests left out and add the tokens prefilled."""
    for place in range(m.left_out):
        i = tables[LEFT_OUT, place].item
        if requests[i].since > 0:  # all its coming events are one step later
            ring.stop_decoding(m, requests, extra, cells, i, YES)
            ring.start_decoding(m, requests, extra, cells, i, requests[i].since + 1)
    for place in range(m.partials - 1, -1, -1):
        i = tables[PARTIAL, place].item
        r, x = requests[i], extra[i]
        x.kv += x.tokens
        x.tokens = 0
        if x.kv == r.prompt + r.generated:
            m.partials = swap.unlist(extra, tables, PARTIAL, m.partials, i)
            ring.start_decoding(m, requests, extra, cells, i, m.step)


@compiled
def _reach_tokens(m, requests, extra, tables, times, cells):
    """Process the events of this step: first tokens, exceeded predictions, last tokens."""
    bucket = m.step & (m.ring_size - 1)
    i = cells[bucket]
    if i == NONE:
        return
    cells[bucket] = NONE
    cells[m.ring_size + (bucket >> 6)] &= ~(1 << (bucket & 63))
    while i != NONE:
        r, x = requests[i], extra[i]
        following = r.link
        made = r.generated + m.step - r.since + 1
        if not r.started:
            r.started = 1
            times[FIRST, i] = m.now
        if made < r.total:
            if m.follows and x.estimate <= made:
                running.exceed(m, requests, extra, tables, i, made)
            ring.link(m, requests, extra, cells, i)
        else:
            m.free += swap.blocks(m, max(r.prompt + made - 1, r.reserved))
            ring.stop_decoding(m, requests, extra, cells, i, NO)
            running.leave(m, requests, extra, tables, i)
            times[FINISHED_AT, i] = m.now
            m.done += 1
            m.blocked = 0
            if m.at_arrival:
                m.in_flight_tokens -= x.base
        i = following


@compiled
def _schedule(m, requests, extra, tables, times, cells, ewt):
    """Choose the requests of this step; True if some were preempted for it."""
    preemptions = m.preemptions
    m.cursor = LAST
    lacking = cells[ring.phase(m, m.step)]
    if m.partials > 0 or lacking > m.free:
        running.grow(m, requests, extra, tables, cells, lacking)
    else:
        m.free -= lacking
    m.least_free = min(m.least_free, m.free)
    if m.waiting > 0 and m.preemptions == preemptions and m.paused == 0:
        admission.admit(m, requests, extra, tables, times, cells)
    if ewt is not None and m.residents + m.swapped > 0:
        ahead.offload(m, requests, extra, tables)
        ahead.upload(m, requests, extra, tables)
    _tally(m, requests, extra, tables)
    if m.scheduled == 0 and m.paused > 0 and m.on_preemption == DEFER:
        i = running.victim(m, requests, extra, tables)
        running.preempt(m, requests, extra, tables, cells, i)
    return m.preemptions > preemptions


@compiled
def _arrive(m, requests, extra, tables, times, cells):
    """Process arrivals, ended copies and timers; False: there is no request, so time moved on."""
    if m.copy_ends <= m.now:
        swap.end_copies(m, requests, extra, tables, cells)
    while m.next_ready <= m.now:
        if m.at_arrival:
            order.make_key(m, requests, extra, m.next)
        order.wait(m, requests, extra, tables, m.next)
        m.next += 1
        m.next_ready = times[READY, m.next] if m.next < len(requests) else NEVER
    if m.running == 0 and m.waiting == 0:
        m.now = m.next_ready
        return False
    order.ring_timers(m, requests, extra, tables)
    return True


@inlined
def begin_step(m, requests, extra, tables, times, cells, ewt):
    """Choose the requests of a step and advance the clock; True if some were preempted for it.

    The duration is affine in prefill tokens, sequences and context read.
    """
    m.prefill = m.blocked = m.paused = m.claimed = m.left_out = m.asked = 0
    m.best = NONE
    m.round += 1
    preempted = _schedule(m, requests, extra, tables, times, cells, ewt)
    if m.scheduled > 0:
        if not m.overlap:  # all copies that were started come first
            until = max(m.now, m.out_free_at, m.in_free_at)
            m.stall += until - m.now
            m.now = until
        time = m.step_time + m.sequence_time * m.scheduled
        time += m.context_time * m.context + m.prefill_time * m.prefill
        m.now += time
        m.busy += time
    return preempted


@inlined
def end_step(m, requests, extra, tables, times, cells):
    """Process what the step generated."""
    if m.left_out > 0 or m.partials > 0:
        _settle(m, requests, extra, tables, cells)
    _reach_tokens(m, requests, extra, tables, times, cells)
    m.step += 1


@inlined
def _serve(m, requests, extra, tables, times, cells, ewt):
    while m.done < m.until:
        if not _arrive(m, requests, extra, tables, times, cells):
            continue
        m.left = m.budget - m.decoding
        if m.kind == ANY and _lacks_scores(m, requests, extra, tables, cells):
            return NEEDS_SCORES
        preempted = begin_step(m, requests, extra, tables, times, cells, ewt)
        if m.scheduled > 0 or preempted:
            end_step(m, requests, extra, tables, times, cells)
        else:  # wait until a copy ends or a request arrives
            until = min(m.next_ready, m.copy_ends)
            if until == NEVER:
                return STUCK
            m.stall += until - m.now
            m.now = until
        if max(m.now, m.out_free_at, m.in_free_at) > m.limit:
            return OVERFLOW
        if not preempted and m.decoding <= m.jump_up_to:
            ring.jump(m, requests, tables, cells)
    return FINISHED


@entry
def run(machine, requests, extra, tables, times, cells):
    """Serve until ``m.until`` requests are done.

    Returns FINISHED, OVERFLOW, STUCK (a defect) or NEEDS_SCORES: fill ``score`` of the waiting and,
    if ``asked_running``, of the running requests, and call again.
    """
    return _serve(machine[0], requests, extra, tables, times, cells, None)


@entry
def run_with_ewt(machine, requests, extra, tables, times, cells):
    """``run`` with copies ahead of time, compiled only if it is used."""
    return _serve(machine[0], requests, extra, tables, times, cells, 0)
