"""The machine's state. Its functions share six arrays:

``m``         the machine itself, a record: what is fixed for the run, clock, counts, totals;
``requests``  what is known of each request, records of shape (n,);
``extra``     what only some policies and memories need of it, the same;
``tables``    heaps and lists of requests, entries (key, item) of shape (TABLES, n or more);
``times``     arrival and what is measured, shape (4, n): columns are quicker to fill and read;
``cells``     events by step, and behind them the histogram of block growth (``core.ring``).

Times are picoseconds, except those that a policy's score is made of: seconds.

A request that decodes is touched by none of its steps but those with an event. Its progress is
``generated`` tokens before step ``since`` and one more in each step from then on; ``kv``,
``blocks`` and ``tokens`` are kept of the others only. Steps count from 1, so a request decodes
where ``since > 0``; all fields are 0 at first, which costs nothing where they stay so.
"""

import numpy as np

# How a policy's order is had (``m.kind``): fixed scores, scores with a time of promotion,
# predicted remaining time, base + slope * time, a compiled function, or a Python function that is
# asked at every decision.
STATIC, BOUNDED, REMAINING, LINEAR, MOVING, ANY = range(6)

# What is done with a preempted request (``m.on_preemption``), as ``server.ON_PREEMPTION``.
RECOMPUTE, SWAP, EWT, DEFER = range(4)

# Where a request's KV is (``place``).
NOWHERE, DEVICE, LEAVING, HOST, COMING = range(5)

# Rows of ``times``.
READY, SCHEDULED, FIRST, FINISHED_AT = range(4)

# What a call of the machine ended with.
FINISHED, NEEDS_SCORES, OVERFLOW, STUCK = range(4)

# Rows of ``tables``. Heaps come first, each followed by the place of every request in it.
# VICTIMS numbers requests from the last and negates scores: the first to be preempted is on top.
# A linear order needs no timers and keeps its slopes there.
(
    WAITING, WAITING_PLACE, VICTIMS, VICTIMS_PLACE, TIMERS, LEVELS, RESIDENT, SWAPPED, GOING,
    RETURNING, PARTIAL, LEFT_OUT, TABLES,
) = np.arange(13)  # fmt: skip
SLOPES = TIMERS

NONE, NO, YES = np.int64(-1), np.int64(0), np.int64(1)
NEVER = np.int64(2**63 - 1)
LAST = np.int64(2**62)  # after every step and every place in the order of admission


def _record(integers: str, floats: str = "") -> np.dtype:
    fields = [(name, np.int64) for name in integers.split()]
    return np.dtype(fields + [(name, np.float64) for name in floats.split()], align=True)


COUNTS = (
    "preemptions", "swaps_out", "swaps_in", "swapped_out_tokens", "swapped_in_tokens",
    "offloads_ahead", "uploads_ahead", "recomputed_tokens", "dropped_for_full_host",
)  # fmt: skip
TIMES = ("busy", "stall", "link_out_busy", "link_in_busy")
"""What is counted; see ``simulate.SimulatedCompletions``."""

PARAMETERS = tuple(f"parameter_{i}" for i in range(8))
"""Of a compiled score, one after the other in memory."""

MACHINE = _record(
    # of the step
    "now step round next next_ready waiting running decoding kv_offset free left prefill partials "
    "timers best blocked paused claimed left_out cursor scheduled context least_free first_running "
    "last_running order done until stop_at quiet_until same_until under_way restless stalled "
    # fixed
    "slots block shift blocks watermark budget chunked lead step_time sequence_time context_time "
    "prefill_time limit kind on_preemption jump_up_to ring_size growth_at plain displaces listed "
    "ranked follows tracked goes_on reserves host_blocks latency out_time in_time overlap "
    "spare_blocks ahead levels order_growth wait_growth function victims parameters at_arrival "
    # of the two tiers, and totals
    "host_free leaving residents resident swapped uploading out_free_at in_free_at out_first "
    "out_last in_first in_last copy_ends asked asked_running least_host_free "
    + " ".join(COUNTS + TIMES),
    "in_flight_tokens promotion "
    "order_prefill order_context order_token wait_prefill wait_context wait_token "
    + " ".join(PARAMETERS),
)
"""``decoding`` of those ``running``: in step t they read ``kv_offset + decoding * t`` tokens.
``partials`` prefill; ``left_out`` decode, but not in this step. Of the step also: token budget
``left``; ``claimed`` blocks of those that pause; ``cursor``, up to where in the order of admission
blocks were given; ``best``, the first that waits; ``until`` so many are done it runs. Up to
``quiet_until`` nobody comes or goes; no jump passes ``stop_at``; the rest of that line is for a
machine among others (``core.fleet``). ``order_*`` is the time model of the policy's score,
``wait_*`` that of the machine, for EWT. ``at_arrival``: the policy's function makes each score
then, of ``in_flight_tokens`` among others. ``leaving``: blocks whose copy is under way;
``residents``: those that wait with their KV on the device, ``resident`` their blocks;
``uploading``: those that wait while their KV comes back."""

_TOKENS = ["prompt", "generated", "total", "link", "before", "after", "preempted"]
_FLAGS = ["place", "waits", "started"]
REQUEST = np.dtype({
    "names": ["score", "since", "reserved", *_TOKENS, *_FLAGS],
    "formats": ["f8", "i8", "i8", *["i4"] * len(_TOKENS), *["i1"] * len(_FLAGS)],
    "itemsize": 64,
})  # fmt: skip
"""What every run needs of a request: a cache line. ``generated``: its tokens before step
``since``; ``total``: tokens it is to generate; ``link``: the next of its bucket in the ring;
``before``, ``after``: neighbours in the order of admission; ``started``: has a first token."""

EXTRA = _record(
    "kv blocks tokens prefilled order left_out_at spot has_timer "
    "copied_at swapped_at swapped promote_at",
    "estimate arrived base slope",
)
"""What only some need. ``kv``: tokens whose KV exists; ``tokens``: those of this step;
``prefilled``: is the KV of its prompt there; ``order``: of admission; ``spot``: its place in a
list; ``estimate``: the length that is believed in; ``base``, ``slope``: of a LINEAR score, or
``base`` the prediction that a compiled one reads."""

ENTRY = _record("item key")  # of a float, its ``order.sortable``
