"""The machine's state. Every function of this package takes the same five arrays:

``c`` constants of the run, a record;
``s`` registers, a record;
``q`` what is known of each request, records of shape (n,);
``w`` lists of requests, int64 of shape (rows, n);
``b`` the seconds between a policy's levels, float64.

Times are picoseconds, except those that a policy's score is made of: seconds.
"""

import numpy as np

# How a policy's order is had (``c.kind``): fixed, with a time of promotion, base + slope * time,
# from a Python function, or from predicted remaining time.
STATIC, BOUNDED, LINEAR, ANY, REMAINING = range(5)

# What is done with a preempted request (``c.on_preemption``), as ``memory.ON_PREEMPTION``.
RECOMPUTE, SWAP, EWT, DEFER = range(4)

# Where a request's KV is (``place``).
NOWHERE, DEVICE, LEAVING, HOST, COMING = range(5)

# What a call of the machine ended with.
FINISHED, NEEDS_SCORES, OVERFLOW, STUCK = range(4)

# Rows of w: running, in order of admission; waiting, a heap; parked, those of the waiting whose
# KV is somewhere; copies asked for in each direction; timers, a heap; and a stack.
RUNNING, WAITING, PARKED, GOING, RETURNING, TIMER_KEY, TIMER_ITEM, STACK, LISTS = range(9)

NONE = -1
UNLIMITED = 2**40


def _record(integers: str, floats: str = "") -> np.dtype:
    fields = [(name, np.int64) for name in integers.split()]
    return np.dtype(fields + [(name, np.float64) for name in floats.split()])


CONSTANTS = _record(
    "slots block blocks watermark budget chunked lead step_time sequence_time context_time "
    "prefill_time limit kind preempts on_preemption host_blocks latency out_time in_time "
    "overlap spare_blocks ahead order_growth wait_growth",
    "promotion order_prefill order_context order_token wait_prefill wait_context wait_token",
)
"""``order_*`` is the time model of the policy's score, ``wait_*`` that of the machine, for EWT."""

REGISTERS = _record(
    "now step next running waiting parked timers done asked cursor "
    "left prefill scheduled context paused claimed "
    "free host_free leaving resident uploading reclaim out_free_at in_free_at "
    "out_first out_last in_first in_last "
    "preemptions busy stalled swaps_out swaps_in tokens_out tokens_in out_busy in_busy "
    "recomputed ahead_out ahead_in host_full least_free least_host_free",
    "bound",
)
"""Of the step: token budget ``left``, ``claimed`` blocks of those that pause. ``leaving``: blocks
whose copy is under way; ``resident``: blocks of those that wait; ``uploading``: those that wait
while their KV comes back; ``bound``: no running request has a higher score."""

# What every step reads comes first: one cache line.
REQUEST = _record(
    "place prompt made kv blocks total tokens prefilling "
    "ready reserved waits heap parked copied_at swapped_at swapped promote_at has_timer "
    "scheduled_at first_at finished_at preempted",
    "score estimate arrived base slope",
)
"""``made``: tokens generated; ``kv``: tokens whose KV exists; ``tokens``: those of this step;
``estimate``: the length that is believed in; ``heap``, ``parked``: places in those lists."""


def new_machine(constants: np.ndarray, ready, prompt, total, boundaries):
    """(c, s, q, w, b) at time 0 with nothing arrived; c and s are arrays of one record."""
    n = len(ready)
    c = constants.copy()
    s = np.zeros(1, REGISTERS)
    q = np.zeros(n, REQUEST)
    w = np.empty((LISTS, n), np.int64)
    s["free"] = s["least_free"] = c["blocks"]
    s["host_free"] = s["least_host_free"] = c["host_blocks"]
    s["bound"] = np.inf
    q["ready"], q["prompt"], q["total"] = ready, prompt, total
    q["prefilling"] = 1
    for name in ("scheduled_at", "first_at", "finished_at"):
        q[name] = NONE
    return c, s, q, w, np.asarray(boundaries, np.float64)
