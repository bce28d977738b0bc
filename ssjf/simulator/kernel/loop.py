"""The serving loop: arrive, grow, admit, advance, finish; and the jump over quiet steps."""

from ssjf.simulator.kernel.compiled import compiled, inlined
from ssjf.simulator.kernel import ring, running, waiting
from ssjf.simulator.kernel.state import (
    AFTER, BLOCK, BLOCKED, BUDGET, BUSY, CHUNKED, CONTEXT, CONTEXT_TIME, DECODING, DONE, DYNAMIC,
    FINISHED, FINISHED_AT, FIRST_AT, FIRST_RUNNING, FLAGS, FREE, GENERATED, HELD, HELD_KV,
    IS_HELD, KIND, KV_OFFSET, LEAD, LEFT, LIMIT, LINEAR, LINK, NEEDS_SCORES, NEXT, NONE, NOW,
    OLDEST, OVERFLOW, PARTIAL, PARTIAL_DONE, PREEMPTIONS, PREFILL, PREFILL_TIME, PROMPT, QUOTA,
    READY, REGISTERS, SCHEDULED, SCHEDULED_AT, SCORED_STEP, SEQUENCE_TIME, SKIP_BELOW, SLOTS,
    STATIC, STEP, STEP_TIME, TIMEOUT, TOTAL, WAITING, WATERMARK,
)  # fmt: skip


@inlined
def _used(c, s, q, f, e):
    """Slots taken."""
    return s[DECODING] + s[HELD] + (s[PARTIAL] != NONE)


@compiled
def _idle(c, s, q, f, e):
    """Nothing runs: move the clock to where something can start (True: it moved)."""
    if s[WAITING] == 0:
        s[NOW] = q[READY, s[NEXT]]
        return True
    if c[DYNAMIC]:
        deadline = q[READY, s[OLDEST]] + c[TIMEOUT]
        if s[WAITING] < c[SLOTS] and s[NOW] < deadline:
            if s[NEXT] < q.shape[1]:
                deadline = min(deadline, q[READY, s[NEXT]])
            s[NOW] = deadline
            return True
        s[QUOTA] = min(s[WAITING], c[SLOTS])
    return False


@inlined
def _growth(c, s, q, f, e):
    """Blocks that the running requests need for this step."""
    need = s[REGISTERS + running.phase(c, s, q, f, e, s[STEP])]
    if s[PARTIAL] != NONE:
        need += running.blocks_wanted(c, s, q, f, e, s[PARTIAL])[0]
    return need


@inlined
def _grow(c, s, q, f, e, need):
    """Every running request gets its token of this step; True if some were preempted."""
    if need <= s[FREE]:
        s[FREE] -= need
        if s[PARTIAL] != NONE:
            running.take_chunk(c, s, q, f, e, running.continue_prefill(c, s, q, f, e))
        return False
    before = s[PREEMPTIONS]
    running.grow_one_by_one(c, s, q, f, e)
    return s[PREEMPTIONS] > before


@inlined
def _admit(c, s, q, f, e):
    """Take requests in policy order while slots, token budget and KV blocks allow."""
    while s[WAITING] > 0 and s[LEFT] > 0 and _used(c, s, q, f, e) < c[SLOTS]:
        if c[DYNAMIC] and s[QUOTA] == 0:
            break
        place = waiting.best(c, s, q, f, e)
        i = waiting.at(c, s, q, f, e, place)
        tokens = running.known_tokens(c, s, q, f, e, i)
        spare = c[WATERMARK] if _used(c, s, q, f, e) > 0 else 0
        if running.blocks(c, s, q, f, e, tokens) + spare > s[FREE]:
            s[BLOCKED] = 1
            s[QUOTA] = 0
            break
        if not c[CHUNKED] and tokens > s[LEFT]:
            break
        waiting.remove(c, s, q, f, e, place)
        s[QUOTA] -= 1
        if q[SCHEDULED_AT, i] < 0:
            q[SCHEDULED_AT, i] = s[NOW]
        running.append(c, s, q, f, e, i)
        _first_chunk(c, s, q, f, e, i, tokens)


@inlined
def _first_chunk(c, s, q, f, e, i, tokens):
    chunk = min(tokens, s[LEFT])
    s[FREE] -= running.blocks(c, s, q, f, e, chunk)
    s[LEFT] -= chunk
    s[PREFILL] += chunk
    if chunk == tokens:
        running.start_decoding(c, s, q, f, e, i)
    else:
        s[PARTIAL] = i
        s[PARTIAL_DONE] = chunk
        s[SCHEDULED] += 1
        s[CONTEXT] += chunk


@inlined
def _advance(c, s, q, f, e):
    """The step takes its time: affine in prefill tokens, sequences and context read."""
    sequences = s[DECODING] + s[HELD] + s[SCHEDULED]
    if sequences <= s[HELD]:
        return  # a step that schedules nothing takes no time
    context = s[KV_OFFSET] + s[DECODING] * s[STEP] + s[HELD_KV] + s[CONTEXT]
    time = (
        c[STEP_TIME]
        + c[SEQUENCE_TIME] * sequences
        + c[CONTEXT_TIME] * context
        + c[PREFILL_TIME] * s[PREFILL]
    )
    s[NOW] += time
    s[BUSY] += time


@inlined
def _finish(c, s, q, f, e, i):
    """The last token of i: it leaves, or holds its slot until its dynamic batch ends."""
    kv = running.kv_tokens(c, s, q, f, e, i, s[STEP])
    running.stop_decoding(c, s, q, f, e, i)
    if c[DYNAMIC]:
        q[FLAGS, i] |= IS_HELD
        s[HELD] += 1
        s[HELD_KV] += kv
        q[GENERATED, i] = kv - q[PROMPT, i]
        return
    s[FREE] += running.blocks(c, s, q, f, e, kv)
    s[BLOCKED] = 0
    q[FINISHED_AT, i] = s[NOW]
    s[DONE] += 1
    running.remove(c, s, q, f, e, i)


@inlined
def _no_more_join(c, s, q, f, e):
    """Is the dynamic batch complete?"""
    return s[QUOTA] <= 0 or s[WAITING] == 0


@compiled
def _close_batch(c, s, q, f, e):
    """The longest member of a dynamic batch is done: all return."""
    i = s[FIRST_RUNNING]
    while i != NONE:
        s[FREE] += running.blocks(c, s, q, f, e, running.known_tokens(c, s, q, f, e, i))
        q[FINISHED_AT, i] = s[NOW]
        s[DONE] += 1
        running.remove(c, s, q, f, e, i)
        i = q[AFTER, i]
    s[HELD] = 0
    s[HELD_KV] = 0


@inlined
def _reach_tokens(c, s, q, f, e):
    """First and last tokens that this step produced."""
    i = ring.take(c, s, q, f, e, s[STEP])
    while i != NONE:
        following = q[LINK, i]
        if q[FIRST_AT, i] < 0:
            q[FIRST_AT, i] = s[NOW]
            if q[TOTAL, i] - c[LEAD] > 1:
                ring.link(c, s, q, f, e, i, ring.event_step(c, s, q, f, e, i))
                i = following
                continue
        _finish(c, s, q, f, e, i)
        i = following


@compiled
def _steps_with_blocks(c, s, q, f, e, most):
    """How many of the next ``most`` steps the free blocks last without a preemption."""
    block = c[BLOCK]
    free = s[FREE]
    rounds = free // s[DECODING]
    if rounds * block >= most:
        return most
    free -= rounds * s[DECODING]
    steps = rounds * block
    while steps < most:
        need = s[REGISTERS + running.phase(c, s, q, f, e, s[STEP] + steps)]
        if need > free:
            break
        free -= need
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
def _jump(c, s, q, f, e):
    """Take at once all coming steps in which nothing but growth can happen."""
    if s[PARTIAL] != NONE or s[DECODING] == 0:
        return
    full = _used(c, s, q, f, e) == c[SLOTS] or c[DYNAMIC]
    if c[DYNAMIC] and s[QUOTA] > 0 and s[WAITING] > 0:
        return
    if s[WAITING] > 0 and not full and not (c[KIND] == STATIC and s[BLOCKED]):
        return
    steps = ring.steps_to_event(c, s, q, f, e, s[STEP])
    if steps > 0:
        steps = _steps_with_blocks(c, s, q, f, e, steps)
    if steps == 0:
        return
    context = s[KV_OFFSET] + s[DECODING] * s[STEP] + s[HELD_KV]
    sequences = s[DECODING] + s[HELD]
    first = c[STEP_TIME] + c[SEQUENCE_TIME] * sequences + c[CONTEXT_TIME] * context
    increment = c[CONTEXT_TIME] * s[DECODING]
    if not full and s[NEXT] < q.shape[1]:
        steps = _steps_until(q[READY, s[NEXT]] - s[NOW], steps, first, increment)
    _skip(c, s, q, f, e, steps, _elapsed(steps, first, increment))


@inlined
def _skip(c, s, q, f, e, steps, time):
    s[NOW] += time
    s[BUSY] += time
    rounds = steps // c[BLOCK]
    s[FREE] -= rounds * s[DECODING]
    for step in range(s[STEP] + rounds * c[BLOCK], s[STEP] + steps):
        s[FREE] -= s[REGISTERS + running.phase(c, s, q, f, e, step)]
    s[STEP] += steps


@inlined
def _scores_missing(c, s, q, f, e, need):
    """Must a policy that is not static score at this step? LINEAR does it at once."""
    short = need > s[FREE]
    if c[KIND] < LINEAR or s[SCORED_STEP] == s[STEP]:
        return False
    if not short and (s[WAITING] < 2 or _used(c, s, q, f, e) >= c[SLOTS]):
        return False
    s[SCORED_STEP] = s[STEP]
    if c[KIND] == LINEAR:
        waiting.score(c, s, q, f, e, short)
        return False
    s[BLOCKED] = short
    return True


@compiled
def run(c, s, q, f, e):
    """Serve everything; returns FINISHED, OVERFLOW, or NEEDS_SCORES.

    After NEEDS_SCORES the caller fills ``m.score`` for what waits (and for what runs where
    ``s[BLOCKED]`` is set: a victim will be chosen) and calls again.
    """
    while s[DONE] < q.shape[1]:
        waiting.arrive(c, s, q, f, e)
        if _used(c, s, q, f, e) == 0 and _idle(c, s, q, f, e):
            continue
        s[LEFT] = c[BUDGET] - s[DECODING]
        s[PREFILL] = 0
        s[SCHEDULED] = 0
        s[CONTEXT] = 0
        s[BLOCKED] = 0
        need = _growth(c, s, q, f, e)
        if _scores_missing(c, s, q, f, e, need):
            return NEEDS_SCORES
        preempted = _grow(c, s, q, f, e, need)
        if not preempted and s[WAITING] > 0:
            _admit(c, s, q, f, e)
        _advance(c, s, q, f, e)
        _reach_tokens(c, s, q, f, e)
        if s[HELD] > 0 and _used(c, s, q, f, e) == s[HELD] and _no_more_join(c, s, q, f, e):
            _close_batch(c, s, q, f, e)
        s[STEP] += 1
        if s[NOW] > c[LIMIT]:
            return OVERFLOW
        if not preempted and s[DECODING] <= c[SKIP_BELOW]:
            _jump(c, s, q, f, e)
    return FINISHED
