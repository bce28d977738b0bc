"""Several machines behind a router: each runs by itself until the next arrival that it may get.

Its clock has then reached the time of the arrival: a step that began earlier is under way, its
duration known and its tokens not yet generated, so the router sees nothing of the future. All
machines share the requests; each has its own record, ``tables`` and ``cells``.
"""

import numpy as np

from ssjf.simulator.core import order, ring, swap
from ssjf.simulator.core.compiled import ask, compiled, entry
from ssjf.simulator.core.loop import begin_step, end_step
from ssjf.simulator.core.state import (
    BOUNDED, FINISHED, NEVER, NO, NONE, OVERFLOW, READY, STUCK, WAITING,
)  # fmt: skip

NOTHING, COUNTS, LENGTHS, STARTS = range(4)  # keys of ``scheduler.routers.SEEN``
ROUTING = np.dtype([(name, np.int64) for name in ("function", "sees", "last", "seed")])
"""``last``: the replica chosen last."""
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX, MIX_AGAIN = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@compiled
def uniform(seed, key, replica):
    """A pseudo-random number in [0, 1) from these three (SplitMix64)."""
    x = np.uint64(seed)
    for part in (np.uint64(key), np.uint64(replica)):
        x = (x ^ part) + GOLDEN
        x = (x ^ (x >> np.uint64(30))) * MIX
        x = (x ^ (x >> np.uint64(27))) * MIX_AGAIN
        x ^= x >> np.uint64(31)
    return float(x >> np.uint64(11)) * 2.0**-53


@compiled
def _advance(m, requests, extra, tables, times, cells, until):
    """Run until the clock reaches ``until``; a step that passes it stays under way."""
    m.stop_at = until
    while True:
        if m.under_way:
            if m.now > until:
                m.same_until = m.now - 1
                return FINISHED
            m.under_way = 0
            end_step(m, requests, extra, tables, times, cells)
            if not m.restless and m.decoding <= m.jump_up_to:
                ring.jump(m, requests, tables, cells)
        if m.running == 0 and m.waiting == 0:
            m.same_until = NEVER
            return FINISHED
        if m.stalled and m.now < until:
            if m.copy_ends > until:
                m.same_until = m.copy_ends - 1
                return FINISHED
            if m.copy_ends == NEVER:
                return STUCK
            m.stall += m.copy_ends - m.now
            m.now = m.copy_ends
            m.stalled = 0
        if m.now >= until:
            m.same_until = m.now
            return FINISHED
        if m.copy_ends <= m.now:
            swap.end_copies(m, requests, extra, tables, cells)
        order.ring_timers(m, requests, extra, tables)
        m.left = m.budget - m.decoding
        m.restless = begin_step(m, requests, extra, tables, times, cells, None)
        m.under_way = m.scheduled > 0 or m.restless
        m.stalled = not m.under_way
        if max(m.now, m.out_free_at, m.in_free_at) > m.limit:
            return OVERFLOW


@compiled
def _take(m, requests, extra, tables, i, now):
    """Add request i to a machine whose clock has reached ``now`` or that is idle until then."""
    if m.now < now:
        if m.stalled:
            m.stall += now - m.now
        m.now = now
    m.stalled = 0
    m.restless = 1  # the coming step may admit it, so it is not jumped over
    if m.at_arrival:
        order.make_key(m, requests, extra, i)
    order.wait(m, requests, extra, tables, i)
    m.same_until = m.now - m.under_way
    m.quiet_until = 0


@compiled
def _tokens_left(m, r, tokens):
    return max(tokens + m.lead - order.made(m, r), 1)


@compiled
def _see_lengths(m, seen, requests, tables, tokens):
    queued = prompts = running = kv = 0
    for place in range(m.waiting):
        i = tables[WAITING, place].item
        r, left = requests[i], _tokens_left(m, requests[i], tokens[i])
        queued += left
        prompts += r.prompt
        kv += r.prompt + r.generated + left
    i = m.first_running
    while i != NONE:
        r, left = requests[i], _tokens_left(m, requests[i], tokens[i])
        running += left
        kv += r.prompt + order.made(m, r) + left
        i = r.after
    seen.work_tokens, seen.queued_tokens = queued + running, queued
    seen.queued_prompt_tokens, seen.kv_tokens = prompts, kv


@compiled
def _start_tokens(m, requests, tables, tokens, ends, i):
    """Steps until i has a slot: the level to which the work before it fills the slots."""
    before = 0
    for place in range(m.waiting):
        j = tables[WAITING, place].item
        if m.kind > BOUNDED or m.at_arrival or requests[j].score <= requests[i].score:
            before += _tokens_left(m, requests[j], tokens[j])
    size, j = 0, m.first_running
    while j != NONE:
        order.rise(ends, NO, size, _tokens_left(m, requests[j], tokens[j]), j, NO)
        size += 1
        j = requests[j].after
    slots = m.slots if m.running == 0 else 0 if m.blocked else m.slots - m.running
    level = 0
    while size > 0:
        end = ends[0, 0].key
        if slots > 0 and before < (end - level) * slots:
            break
        before -= (end - level) * slots
        level = end
        slots += 1
        size -= 1
        order.take_out(ends, NO, size, NO, NO)
    return (level * slots + before) / slots


@compiled
def _choose(machines, seen, requests, tables, tokens, key, ends, routing, i):
    """The replica of the lowest score; NONE if none is up."""
    lowest = second = np.inf
    for k in range(len(seen)):
        if seen[k].up:
            draw = seen[k].draw = uniform(routing.seed, key, k)
            lowest, second = min(lowest, draw), min(second, max(lowest, draw))
    chosen, least = NONE, np.inf
    for step in range(1, len(seen) + 1):
        k = (routing.last + step) % len(seen)
        m, s = machines[k], seen[k]
        if not s.up:
            continue
        s.lot = (s.draw > lowest) + (s.draw > second)
        s.prompt_tokens, s.predicted_tokens = requests[i].prompt, tokens[i]
        if routing.sees >= COUNTS:
            s.running, s.waiting = m.running, m.waiting
        if routing.sees >= LENGTHS:
            _see_lengths(m, s, requests, tables[k], tokens)
        if routing.sees == STARTS:
            s.start_tokens = _start_tokens(m, requests, tables[k], tokens, ends, i)
        value = ask(routing.function, seen.ctypes.data + k * seen.itemsize)
        if chosen == NONE or value < least:
            chosen, least = k, value
    return chosen


@entry
def advance(machines, seen, requests, extra, tables, times, cells, until):
    """Run all machines that are up until this time; returns as ``loop.run``."""
    for k in range(len(machines)):
        if seen[k].up:
            ended = _advance(machines[k], requests, extra, tables[k], times, cells[k], until)
            if ended != FINISHED:
                return ended
    return FINISHED


@entry
def route(
    machines, seen, requests, extra, tables, times, cells, tokens, keys, replica, ends, routing,
    rows, earliest,
):  # fmt: skip
    """Route the requests ``rows`` in this order, each when it is ready but not before ``earliest``;
    one replica must be up. Returns as ``loop.run``."""
    router = routing[0]
    for place in range(len(rows)):
        i = rows[place]
        now = max(times[READY, i], earliest)
        if router.sees > NOTHING:
            for k in range(len(machines)):
                m = machines[k]
                same = max(m.same_until, m.quiet_until) if router.sees == COUNTS else m.same_until
                if same < now and seen[k].up:
                    ended = _advance(m, requests, extra, tables[k], times, cells[k], now)
                    if ended != FINISHED:
                        return ended
        k = _choose(machines, seen, requests, tables, tokens, keys[i], ends, router, i)
        m = machines[k]
        if m.same_until < now:
            ended = _advance(m, requests, extra, tables[k], times, cells[k], now)
            if ended != FINISHED:
                return ended
        _take(m, requests, extra, tables[k], i, now)
        replica[i] = router.last = k
    return FINISHED
