"""The machine's state. Every function of the kernel takes the same five arrays:

``c`` constants of the run, int64;
``s`` registers, int64, and behind them the growth histogram (a cell per block phase);
``q`` int64, shape (fields, n): one row per thing known of a request;
``f`` float64, shape (3, n): base, slope and score of policies whose order moves with time;
``e`` int64: the buckets of the event ring, and behind them the bitmap of those not empty.

Times are picoseconds.
"""

import numpy as np

# Rows of c.
(
    SLOTS, BLOCK, BLOCKS, WATERMARK, BUDGET, CHUNKED, LEAD, DYNAMIC, TIMEOUT,
    STEP_TIME, SEQUENCE_TIME, CONTEXT_TIME, PREFILL_TIME, KIND, LIMIT, SKIP_BELOW, RING,
    SHIFT, LISTED, CONSTANTS,
) = range(20)  # fmt: skip

# Rows of s.
(
    NOW, STEP, NEXT, WAITING, DECODING, HELD, HELD_KV, KV_OFFSET, FREE, PARTIAL, PARTIAL_DONE,
    PROMOTED, TIMERS, QUOTA, OLDEST, DONE, PREEMPTIONS, SCORED_STEP, FIRST_RUNNING,
    LAST_RUNNING, BUSY, LEFT, PREFILL, SCHEDULED, CONTEXT, BLOCKED, HEAP, REGISTERS,
) = range(28)  # fmt: skip

# Rows of q: what arrived and its order; progress; links of the running list and the ring;
# what was measured; the waiting queue's heaps (HEAP_ITEM is a plain list for scanned kinds).
(
    READY, PROMPT, TOTAL, KEY, PROMOTE_AT, GENERATED, SINCE, FLAGS, BEFORE, AFTER, LINK,
    SCHEDULED_AT, FIRST_AT, FINISHED_AT, PREEMPTED,
    HEAP_KEY, HEAP_ITEM, LATE_KEY, LATE_ITEM, TIMER_KEY, TIMER_ITEM, FIELDS,
) = range(22)  # fmt: skip

# Rows of f.
BASE, SLOPE, SCORE = range(3)

# How a policy's order depends on time (``c[KIND]``).
STATIC, BOUNDED, LINEAR, ANY = range(4)

# What a call of the kernel ended with.
FINISHED, NEEDS_SCORES, OVERFLOW = range(3)

# Bits of ``q[FLAGS]``.
IS_WAITING, IS_PROMOTED, HAS_TIMER, IS_HELD = 1, 2, 4, 8

NONE = -1


def new_machine(constants, ready, prompt, total):
    """(c, s, q, f, e) at time 0 with nothing arrived; ``c[KIND]`` must be set."""
    c = constants.copy()
    n = len(ready)
    # No two events of live requests may meet in a bucket.
    c[RING] = max(64, 1 << int(total.max() + 2).bit_length())
    power = int(c[BLOCK]).bit_count() == 1
    c[SHIFT] = int(c[BLOCK]).bit_length() - 1 if power else NONE
    # The running list is only ever read to find a victim or to close a dynamic batch.
    most = int((prompt + total).max()) // c[BLOCK] + 1
    c[LISTED] = c[DYNAMIC] or most * c[SLOTS] > c[BLOCKS]
    s = np.zeros(REGISTERS + c[BLOCK], np.int64)
    s[[PARTIAL, SCORED_STEP, FIRST_RUNNING, LAST_RUNNING]] = NONE
    s[FREE] = c[BLOCKS]
    q = np.empty((FIELDS, n), np.int64)  # rows are written before they are read
    q[READY], q[PROMPT], q[TOTAL] = ready, prompt, total
    q[[GENERATED, FLAGS, PREEMPTED]] = 0
    q[SCHEDULED_AT : FINISHED_AT + 1] = NONE
    f = np.zeros((3, n if c[KIND] >= LINEAR else 1))
    e = np.full(c[RING] + (c[RING] >> 6), NONE, np.int64)
    e[c[RING] :] = 0
    return c, s, q, f, e
