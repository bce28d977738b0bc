"""The published simulation's two serving loops, compiled; see ``published`` for what they mean.

Times are float64: seconds where the clock drifts, whole ticks where it does not.
"""

import numpy as np
from numba import njit

DYNAMIC, CONTINUOUS = 1, 2  # places in ``published.MODES``


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
def serve_in_order(arrived, duration, mode, slots, timeout, join, drifts, started, finished):
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
def serve_shortest(
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
