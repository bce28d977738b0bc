"""The SSJF paper's own simulation, rebuilt from its rules with every quirk a named option.

A job runs for a fixed duration whatever runs beside it; there is no prefill, no KV memory and
no slow-down with the batch. Three batching modes:

- ``none``: one job at a time;
- ``dynamic``: a batch runs as long as its longest member (the authors' STATIC mode);
- ``continuous``: the batch is formed anew whenever a member ends (the authors' DYNAMIC mode).

Source: the authors' public code, commit 4b86686, ``model-serving/{fcfs,sjf}{,_dynamic}.py``;
the rules were read there and written anew. With every quirk off, ``continuous`` is the
work-conserving, non-preemptive multi-server queue.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

import numpy as np
from numba import njit

from ssjf.errors import InputError, unknown
from ssjf.request import Completions, FloatArray, IntArray, Requests

MODES = ("none", "dynamic", "continuous")
DYNAMIC, CONTINUOUS = 1, 2
POLICIES = ("fcfs", "sjf", "ssjf")
START_UP_SECONDS = 0.1
SECONDS_PER_TOKEN = 0.02
FILL_TIMEOUT_SECONDS = 10.0
GUARD_WAIT_SECONDS = 100.0
GUARD_WAIT_FACTOR = 10.0
TICKS_PER_SECOND = 1e9  # whole ticks in a float64 are exact for 104 days


@dataclass(frozen=True)
class Quirks:
    """What the published simulation does that a server would not, all on by default.

    Those that act on the arrivals are applied by the workload, the one that acts on the
    reading ("throughput") by the metrics; they stand here so that all have one home.
    """

    whole_second_arrivals: bool = True
    """Poisson counts per whole second: several jobs arrive at the same instant."""
    sorted_gaps: bool = True
    """Gamma gaps are sorted: arrivals slow down steadily over the run."""
    milliseconds_as_seconds: bool = True
    """Azure arrival times in milliseconds are read as seconds: a load 1,000 times lighter."""
    fcfs_waits_to_fill: bool = True
    """FCFS idles up to 10 s for each partial batch; SJF and SSJF never do."""
    drops_last_job: bool = True
    """SJF and SSJF end without serving a last job that finds the queue empty."""
    free_preemption: bool = True
    """Continuous mode takes unfinished jobs off at no cost: the oracle is really SRPT."""
    joins_on_completion_only: bool = True
    """Continuous mode leaves a free slot empty until some member of the batch ends."""
    starvation_guard: bool = True
    """The whole queue is served by waiting time once its longest wait passes a bound."""
    guard_reads_truth: bool = True
    """The guard's relative bound is 10 times the job's true duration (a leak)."""
    drifting_clock: bool = True
    """Time is a float advanced in slices of up to 1 s: rounding keeps a job whose work is done
    for one more dispatch, and misses an arrival at the very instant of a completion."""
    quarter_throughput: bool = True
    """"Throughput" is read when the first quarter of the jobs has finished."""

    def without(self, names: Iterable[str]) -> "Quirks":
        """These quirks with the named ones off; unknown names raise, listing the known ones."""
        known = quirk_names()
        for name in names:
            if name not in known:
                raise unknown("quirk", name, known)
        return replace(self, **dict.fromkeys(names, False))


def quirk_names() -> tuple[str, ...]:
    """All quirks in their fixed order."""
    return tuple(f.name for f in fields(Quirks))


NO_QUIRKS = Quirks().without(quirk_names())


def duration_seconds(tokens: FloatArray | IntArray) -> FloatArray:
    """Execution time of a job, rounded to 10 ms as the authors do (0.1 s + 0.02 s a token)."""
    return np.round(START_UP_SECONDS + SECONDS_PER_TOKEN * np.asarray(tokens, np.float64), 2)


@njit(cache=True)
def _sort_stably(queue, size, key):
    """Order ``queue[:size]`` by key; equal keys keep their place (insertion sort)."""
    for i in range(1, size):
        job = queue[i]
        j = i - 1
        while j >= 0 and key[queue[j]] > key[job]:
            queue[j + 1] = queue[j]
            j -= 1
        queue[j + 1] = job


@njit(cache=True)
def _longest_wait(queue, size, waited):
    longest = queue[0]
    for i in range(1, size):
        if waited[queue[i]] > waited[longest]:
            longest = queue[i]
    return longest


@njit(cache=True)
def _run(now, part, work, drifts):
    """The clock after ``work``; ``part`` is what is left of the current one-second slice."""
    if not drifts:
        return now + work, part
    while work > 0:
        work -= part
        if work < 0:
            now += work + part
            part = abs(work)
        else:
            now += part
            part = 1.0
    return now, part


@njit(cache=True)
def _wait(now, part, until, drifts, renews):
    """The clock after idling; ``renews``: a slice that was used up becomes a full one."""
    if not drifts or now >= until:
        return max(now, until), part
    while now + part < until:
        now += part
        if renews:
            part = 1.0
    return until, 1.0 - (until - now)


@njit(cache=True)
def _batch_time(batch, size, left, mode):
    """A dynamic batch runs to its longest member, any other to its shortest."""
    run = left[batch[0]]
    for i in range(1, size):
        run = max(run, left[batch[i]]) if mode == DYNAMIC else min(run, left[batch[i]])
    return run


@njit(cache=True)
def _begin(batch, size, now, started):
    for i in range(size):
        if np.isnan(started[batch[i]]):
            started[batch[i]] = now


@njit(cache=True)
def _serve_in_order(arrived, duration, mode, slots, timeout, join, drifts, started, finished):
    """FCFS; returns the time spent idle waiting for batches to fill."""
    n = len(arrived)
    left = duration.copy()
    batch = np.empty(slots, np.int64)
    size = 0
    head = 0
    now = 0.0
    part = 1.0
    idled = 0.0
    while head < n or size > 0:
        if size == 0:
            now = max(now, arrived[head])
        while head < n and size < slots and arrived[head] <= now + timeout:
            batch[size] = head
            size += 1
            head += 1
        start = arrived[batch[size - 1]] if size == slots else now + timeout
        if abs(part) < 0.005:
            part = 1.0
        idled += max(start - now, 0.0)
        now, part = _wait(now, part, start, drifts, False)
        _begin(batch, size, now, started)
        run = _batch_time(batch, size, left, mode)
        joins = join and size < slots and head < n and arrived[head] - now < run
        if joins:
            run = arrived[head] - now
        now, part = _run(now, part, run, drifts)
        if joins:
            now = arrived[head]  # a drifting clock may stop just short of it
        kept = 0
        for i in range(size):
            job = batch[i]
            if mode != CONTINUOUS or left[job] <= run:
                finished[job] = now
            else:
                left[job] -= run
                batch[kept] = job
                kept += 1
        if not join:
            batch[:kept] = batch[:kept][::-1].copy()  # each goes back to the front in turn
        size = kept
    return idled


@njit(cache=True)
def _order(queue, size, key, oracle, left, waited, guard, bound, relative):
    """Order the waiting jobs by key, or by waiting time where the guard fires (True)."""
    if guard:
        longest = _longest_wait(queue, size, waited)
        limit = relative * (left[longest] if oracle else bound[longest])
        if waited[longest] > guard or waited[longest] > limit:
            _sort_stably(queue, size, -waited)
            return True
    _sort_stably(queue, size, left if oracle else key)
    return False


@njit(cache=True)
def _serve_shortest(
    arrived, duration, key, bound, reads_left, oracle, mode, slots, drops, preempts, join,
    guard, relative, drifts, started, finished,
):  # fmt: skip
    """SJF and SSJF; returns (dispatches, dispatches that the starvation guard ordered)."""
    n = len(arrived)
    left = duration.copy()
    if reads_left:
        bound = left
    waited = np.zeros(n)
    queue = np.empty(n, np.int64)
    size = 0
    pinned = 0  # unfinished members that keep their slots: the head of the queue
    head = 0
    now = 0.0
    part = 1.0
    before = 0.0
    dispatches = 0
    guarded = 0
    while head < (n - 1 if drops else n) or size > 0:
        if size == 0:
            now, part = _wait(now, part, arrived[head], drifts, True)
        while head < n and arrived[head] <= now:
            queue[size] = head
            size += 1
            head += 1
        dispatches += 1
        if size > pinned and pinned < slots:
            guarded += _order(
                queue[pinned:], size - pinned, key, oracle, left, waited, guard, bound, relative
            )
        taken = min(slots, size)
        batch = queue[:taken].copy()
        _begin(batch, taken, now, started)
        run = _batch_time(batch, taken, left, mode)
        joins = join and taken < slots and head < n and arrived[head] - now < run
        if joins:
            run = arrived[head] - now
        now, part = _run(now, part, run, drifts)
        if joins:
            now = arrived[head]  # a drifting clock may stop just short of it
        size -= taken
        queue[:size] = queue[taken : taken + size].copy()
        while head < n and arrived[head] <= now:
            queue[size] = head
            size += 1
            head += 1
        pinned = 0
        for i in range(taken):
            job = batch[i]
            if mode != CONTINUOUS or left[job] <= run:
                finished[job] = now
                continue
            left[job] -= run
            if preempts:
                queue[size] = job
            else:
                queue[pinned + 1 : size + 1] = queue[pinned:size].copy()
                queue[pinned] = job
                pinned += 1
            size += 1
        for i in range(size):
            waited[queue[i]] += now - before
        before = now
    return dispatches, guarded


def serve(
    requests: Requests,
    policy: str,
    mode: str,
    slots: int = 1,
    predicted: FloatArray | None = None,
    expected_tokens: FloatArray | None = None,
    quirks: Quirks | None = None,
) -> Completions:
    """Serve a workload by the published rules.

    Parameters
    ----------
    policy: ``fcfs``, ``sjf`` (the true duration) or ``ssjf`` (``predicted``).
    mode: ``none``, ``dynamic`` or ``continuous``; ``slots`` is the largest batch.
    predicted: shape (n,), what SSJF orders by (tokens or a class id).
    expected_tokens: shape (n,), the length a guard without the leak may use; defaults to
        ``predicted``.

    Times of a job never served (see ``Quirks.drops_last_job``) are NaN.
    """
    quirks = quirks or Quirks()
    slots = _check(policy, mode, slots)
    unit = 1.0 if quirks.drifting_clock else TICKS_PER_SECOND
    arrived = _in_units(requests.arrived_at, unit)
    duration = _in_units(duration_seconds(requests.output_tokens), unit)
    started, finished = np.full((2, len(requests)), np.nan)
    join = mode == "continuous" and not quirks.joins_on_completion_only
    rules = (MODES.index(mode), slots)
    counters: dict[str, float] = {}
    if policy == "fcfs":
        timeout = FILL_TIMEOUT_SECONDS * unit * quirks.fcfs_waits_to_fill
        idled = _serve_in_order(
            arrived, duration, *rules, timeout, join, quirks.drifting_clock, started, finished
        )
        counters["idle_seconds"] = idled / unit
    else:
        oracle = policy == "sjf"
        key = duration if oracle else _predicted_seconds(predicted) * unit
        bound = key if expected_tokens is None else duration_seconds(expected_tokens) * unit
        dispatches, guarded = _serve_shortest(
            arrived, duration, key, bound, oracle or quirks.guard_reads_truth, oracle, *rules,
            quirks.drops_last_job, quirks.free_preemption, join,
            GUARD_WAIT_SECONDS * unit * quirks.starvation_guard, GUARD_WAIT_FACTOR,
            quirks.drifting_clock, started, finished,
        )  # fmt: skip
        counters |= {"dispatches": dispatches, "guarded_dispatches": guarded}
    return _completions(requests, started / unit, finished / unit, counters)


def _check(policy: str, mode: str, slots: int) -> int:
    """The slots that the mode really has; bad names and numbers raise."""
    if mode not in MODES:
        raise unknown("batching mode", mode, MODES)
    if policy not in POLICIES:
        raise unknown("policy of the published protocol", policy, POLICIES)
    if slots < 1:
        raise InputError(f"slots is {slots}; it must be at least 1")
    return 1 if mode == "none" else slots


def _in_units(seconds: FloatArray, unit: float) -> FloatArray:
    seconds = np.asarray(seconds, np.float64)
    return seconds.copy() if unit == 1.0 else np.rint(seconds * unit)


def _predicted_seconds(predicted: FloatArray | None) -> FloatArray:
    if predicted is None:
        raise InputError("policy ssjf needs predicted lengths; the workload has none")
    return duration_seconds(predicted)


def _completions(requests, started_at, finished_at, counters) -> Completions:
    first_token_at = np.minimum(started_at + START_UP_SECONDS + SECONDS_PER_TOKEN, finished_at)
    # The drifting clock may start a job a rounding error before it arrives.
    started_at = np.maximum(started_at, requests.arrived_at)
    started_at = np.where(np.isnan(finished_at), np.nan, started_at)
    none = np.zeros(len(requests), np.int64)
    return Completions(requests, started_at, first_token_at, finished_at, none, counters)
