"""The two serving loops of the published simulation, compiled; see ``published``.

Times are float64: seconds if the clock drifts, else whole ticks.
"""

import numpy as np
from numba import njit

DYNAMIC, CONTINUOUS = 1, 2  # indices of ``published.MODES``


@njit(cache=True)
def _sort_stably(queue, key):
    """Insertion sort by key; equal keys keep their place."""
    for i in range(1, len(queue)):
        job = queue[i]
        j = i - 1
        while j >= 0 and key[queue[j]] > key[job]:
            queue[j + 1] = queue[j]
            j -= 1
        queue[j + 1] = job


@njit(cache=True)
def _run(now, rest, work, drifts):
    """Return (now, rest) after ``work``; ``rest`` is left of the current one-second slice."""
    if not drifts:
        return now + work, rest
    while work > 0:
        work -= rest
        if work < 0:
            now += work + rest
            rest = abs(work)
        else:
            now += rest
            rest = 1.0
    return now, rest


@njit(cache=True)
def _wait(now, rest, until, drifts, renews):
    """Return (now, rest) after idling; ``renews``: does a full slice follow one that is used up?"""
    if not drifts or now >= until:
        return max(now, until), rest
    while now + rest < until:
        now += rest
        if renews:
            rest = 1.0
    return until, 1.0 - (until - now)


@njit(cache=True)
def _serve_batch(batch, left, mode, arrival, started, now, rest, drifts):
    """Serve to the end of the batch, or until ``arrival`` takes a free slot: (time, now, rest)."""
    for job in batch:
        if np.isnan(started[job]):
            started[job] = now
    run = left[batch].max() if mode == DYNAMIC else left[batch].min()
    joins = arrival - now < run
    if joins:
        run = arrival - now
    now, rest = _run(now, rest, run, drifts)
    return run, arrival if joins else now, rest  # a drifting clock may stop just before it


@njit(cache=True)
def _arrive(queue, size, head, arrived, now):
    """Append the jobs that have arrived by now to the queue; returns (size, head)."""
    while head < len(arrived) and arrived[head] <= now:
        queue[size] = head
        size += 1
        head += 1
    return size, head


@njit(cache=True)
def serve_in_order(arrived, duration, mode, slots, timeout, join, drifts, started, finished):
    """Serve FCFS; returns the time spent idle while batches fill."""
    n = len(arrived)
    left = duration.copy()
    batch = np.empty(slots, np.int64)
    size = head = 0
    now, rest, idled = 0.0, 1.0, 0.0
    while head < n or size > 0:
        if size == 0:
            now = max(now, arrived[head])
        while head < n and size < slots and arrived[head] <= now + timeout:
            batch[size] = head
            size += 1
            head += 1
        start = arrived[batch[size - 1]] if size == slots else now + timeout
        if abs(rest) < 0.005:
            rest = 1.0
        idled += max(start - now, 0.0)
        now, rest = _wait(now, rest, start, drifts, False)
        arrival = arrived[head] if join and size < slots and head < n else np.inf
        run, now, rest = _serve_batch(batch[:size], left, mode, arrival, started, now, rest, drifts)
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
            batch[:kept] = batch[:kept][::-1].copy()  # each is put back at the front in turn
        size = kept
    return idled


@njit(cache=True)
def _order(queue, key, oracle, left, waited, guard, bound, relative):
    """Order the waiting jobs by key, or, if the guard fires (True), by waiting time."""
    if guard:
        longest = queue[np.argmax(waited[queue])]
        limit = relative * (left[longest] if oracle else bound[longest])
        if waited[longest] > guard or waited[longest] > limit:
            _sort_stably(queue, -waited)
            return True
    _sort_stably(queue, left if oracle else key)
    return False


@njit(cache=True)
def serve_shortest(
    arrived, duration, key, bound, reads_left, oracle, mode, slots, drops, preempts, join,
    guard, relative, drifts, started, finished,
):  # fmt: skip
    """Serve SJF or SSJF; returns (dispatches, dispatches that the starvation guard ordered)."""
    n = len(arrived)
    left = duration.copy()
    if reads_left:
        bound = left
    waited = np.zeros(n)
    queue = np.empty(n, np.int64)
    pinned = 0  # unfinished members that keep their slots: the head of the queue
    size = head = dispatches = guarded = 0
    now, rest, before = 0.0, 1.0, 0.0
    while head < (n - 1 if drops else n) or size > 0:
        if size == 0:
            now, rest = _wait(now, rest, arrived[head], drifts, True)
        size, head = _arrive(queue, size, head, arrived, now)
        dispatches += 1
        if size > pinned and pinned < slots:
            waiting = queue[pinned:size]
            guarded += _order(waiting, key, oracle, left, waited, guard, bound, relative)
        taken = min(slots, size)
        batch = queue[:taken].copy()
        arrival = arrived[head] if join and taken < slots and head < n else np.inf
        run, now, rest = _serve_batch(batch, left, mode, arrival, started, now, rest, drifts)
        size -= taken
        queue[:size] = queue[taken : taken + size].copy()
        size, head = _arrive(queue, size, head, arrived, now)
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
