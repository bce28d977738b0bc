"""The machine's state. Its functions share six arrays:

``m``         the machine itself, a record: fixed settings, clock, counts, totals;
``requests``  the fields of each request that every run needs, records of shape (n,);
``extra``     the fields that only some policies and memories need, the same;
``tables``    heaps and lists of requests, entries (key, item) of shape (TABLES, n or more);
``times``     arrivals and measured times, shape (4, n): columns are quicker to fill and read;
``cells``     events by step, and behind them the histogram of block growth (``core.ring``).

``r`` and ``x`` are a request's records in ``requests`` and ``extra``, ``i`` and ``j`` are rows.
Times are picoseconds, except in a policy's score: seconds. A decoding request is touched only in
the steps of its events. Its progress is ``generated`` tokens before step ``since`` and one more in
each step from then on; ``kv``, ``blocks`` and ``tokens`` are kept for the other requests only.
Steps count from 1, so a request decodes where ``since > 0``; all fields are 0 at first, which costs
nothing where they stay so.
"""

import numpy as np

# Kinds of scores (``m.kind``): fixed, fixed with a time of promotion, predicted remaining time,
# base + slope * time, a compiled function, or a Python function called at every decision.
STATIC, BOUNDED, REMAINING, LINEAR, MOVING, ANY = range(6)

# What happens to a preempted request (``m.on_preemption``), as ``server.ON_PREEMPTION``.
RECOMPUTE, SWAP, EWT, DEFER = range(4)

# Where a request's KV is (``place``).
NOWHERE, DEVICE, LEAVING, HOST, COMING = range(5)

# Rows of ``times``.
READY, SCHEDULED, FIRST, FINISHED_AT = range(4)

# Why a call of the machine ended.
FINISHED, NEEDS_SCORES, OVERFLOW, STUCK = range(4)

# Rows of ``tables``. Heaps come first, each followed by the place of every request in it.
# VICTIMS numbers requests from the last and negates scores: the next victim is on top.
# A linear order needs no timers and keeps its slopes there.
(
    WAITING, WAITING_PLACE, VICTIMS, VICTIMS_PLACE, TIMERS, LEVELS, RESIDENT, SWAPPED, GOING,
    RETURNING, PARTIAL, LEFT_OUT, TABLES,
) = np.arange(13)  # fmt: skip
SLOPES = TIMERS

NONE, NO, YES = np.int64(-1), np.int64(0), np.int64(1)
NEVER, TIME_LIMIT = np.int64(2**63 - 1), 2**62  # picoseconds; the limit is 53 days
LAST = np.int64(2**62)  # after every step and every place in the order of admission


def _record(integers: str, floats: str = "") -> np.dtype:
    fields = [(name, np.int64) for name in integers.split()]
    return np.dtype(fields + [(name, np.float64) for name in floats.split()], align=True)


COUNTS = (
    "preemptions", "swaps_out", "swaps_in", "swapped_out_tokens", "swapped_in_tokens",
    "offloads_ahead", "uploads_ahead", "recomputed_tokens", "dropped_for_full_host",
)  # fmt: skip
TIMES = ("busy", "stall", "link_out_busy", "link_in_busy")
"""Totals of a run; see ``simulate.SimulatedCompletions``."""

PARAMETERS = tuple(f"parameter_{i}" for i in range(8))
"""Parameters of a compiled score, one after the other in memory."""

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
"""Fields of the machine. ``decoding`` of the ``running`` requests decode: in step t they read
``kv_offset + decoding * t`` tokens; ``partials`` prefill. In this step, ``left_out`` decoding
requests get no token, ``left`` is the remaining token budget, ``claimed`` the blocks of paused
requests, ``cursor`` the place in the order of admission up to which blocks were given, and ``best``
the first waiting request. A run ends when ``until`` requests are done. Nobody arrives or leaves
before ``quiet_until``; no jump passes ``stop_at``; the rest of that line is for a machine in a
cluster (``core.fleet``). ``order_*`` is the time model of the policy's score, ``wait_*`` that of
the machine, for EWT. ``at_arrival``: the policy's function makes each score at arrival, among
others from ``in_flight_tokens``. ``leaving``: blocks whose copy is under way; ``residents``:
waiting requests with their KV on the device, ``resident`` their blocks; ``uploading``: waiting
requests whose KV is coming back."""

REQUEST = np.dtype({
    "names": ["score", "since", "reserved", "prompt", "generated", "total", "link", "before",
              "after", "preempted", "place", "waits", "started"],
    "formats": ["f8", "i8", "i8", *["i4"] * 7, *["i1"] * 3],
    "itemsize": 64,
})  # fmt: skip
"""Fields of a request that every run needs: a cache line. ``generated``: its tokens before step
``since``; ``total``: tokens to generate; ``link``: the next request of its bucket in the ring;
``before``, ``after``: neighbours in the order of admission; ``started``: has a first token."""

EXTRA = _record(
    "kv blocks tokens prefilled order left_out_at spot has_timer "
    "copied_at swapped_at swapped promote_at",
    "estimate arrived base slope",
)
"""Fields that only some runs need. ``kv``: tokens with KV; ``tokens``: those of this step;
``prefilled``: does the KV of its prompt exist; ``order``: of admission; ``spot``: its place in a
list; ``estimate``: the current predicted length; ``base``, ``slope``: of a LINEAR score; ``base``
is also the prediction that a compiled score reads."""

ENTRY = _record("item key")  # ``key`` of a float: its ``order.sortable``
