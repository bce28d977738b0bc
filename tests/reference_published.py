"""A plain reference of the published simulation, all quirks on: lists, floats, nothing clever.

The rules are those of the authors' code (see ``ssjf.simulator.published``), down to the order of
the additions: their clock goes on in slices of up to a second, and rounding decides ties.
"""

import numpy as np

FILL_SECONDS, LONG_WAIT_SECONDS, LONG_WAIT_FACTOR = 10, 100, 10
POISSON_RATES = range(1, 11)
CVS = [1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5]
GAMMA_RATE, JOBS, RUNS = 0.03, 50, 20


def authors_arrivals(rows, seed=42):
    """(sweep, x, run, arrivals) of the authors' script: one stream of numbers for both sweeps."""
    state = np.random.RandomState(seed)
    for sweep, values in (("rate", POISSON_RATES), ("cv", CVS)):
        for x in values:
            for run in range(RUNS):
                arrived = (_whole_seconds if sweep == "rate" else _sorted_gaps)(state, x)
                state.choice(rows, JOBS, replace=False)  # which rows of the data the jobs are
                yield sweep, x, run, arrived


def _whole_seconds(state, rate):
    counts = list(state.poisson(rate, int(JOBS / rate)))
    while sum(counts) < JOBS:
        counts += list(state.poisson(rate, int(JOBS / rate)))
    return [float(second) for second, count in enumerate(counts) for _ in range(count)][:JOBS]


def _sorted_gaps(state, cv):
    gaps = state.gamma((1 / cv) ** 2, cv**2 / GAMMA_RATE, JOBS)
    return list(np.cumsum(np.sort(gaps)))


def finish_times(arrived, duration, policy, mode, slots, predicted=None):
    """When each job finishes; NaN for one that is never served."""
    slots = 1 if mode == "none" else slots
    run = _in_order if policy == "fcfs" else _shortest_first
    finished = [float("nan")] * len(arrived)
    run(arrived, list(duration), mode, slots, None if policy == "sjf" else predicted, finished)
    return finished


def _work(now, rest, seconds):
    """The clock after so much work, and the rest of its slice."""
    while seconds > 0:
        seconds -= rest
        if seconds < 0:
            now += seconds + rest
            rest = -seconds
        else:
            now += rest
            rest = 1
    return now, rest


def _leave(batch, left, mode, ran, now, finished):
    """Those of the batch that go on; the others have finished."""
    stay = [job for job in batch if mode == "continuous" and left[job] > ran]
    for job in batch:
        if job in stay:
            left[job] -= ran
        else:
            finished[job] = now
    return stay


def _length(batch, left, mode):
    return (max if mode == "dynamic" else min)(left[job] for job in batch)


def _in_order(arrived, left, mode, slots, _, finished):
    queue = list(range(len(arrived)))
    now, rest = 0.0, 1.0
    while queue:
        now = max(now, arrived[queue[0]])
        batch = []
        while queue and len(batch) < slots and arrived[queue[0]] <= now + FILL_SECONDS:
            batch.append(queue.pop(0))
        start = arrived[batch[-1]] if len(batch) == slots else now + FILL_SECONDS
        if round(rest, 2) == 0:
            rest = 1
        while now < start:
            if now + rest < start:
                now += rest
            else:
                now, rest = start, 1 - (start - now)
        ran = _length(batch, left, mode)
        now, rest = _work(now, rest, ran)
        for job in _leave(batch, left, mode, ran, now, finished):
            queue.insert(0, job)


def _shortest_first(arrived, left, mode, slots, predicted, finished):
    jobs = len(arrived)
    queue, come, waited = [], 0, [0] * jobs
    now, rest, before = 0.0, 1.0, 0.0
    while come < jobs - 1 or queue:  # the last job is lost where it finds nobody waiting
        if not queue:
            until = arrived[come]
            while now < until:
                if now + rest < until:
                    now, rest = now + rest, 1
                else:
                    now, rest = until, 1 - (until - now)
        come = _join(queue, arrived, come, now)
        longest = max(queue, key=lambda job: waited[job])
        if waited[longest] > min(LONG_WAIT_SECONDS, LONG_WAIT_FACTOR * left[longest]):
            queue.sort(key=lambda job: -waited[job])
        else:
            key = left if predicted is None else predicted
            queue.sort(key=lambda job: key[job])
        batch, queue = queue[:slots], queue[slots:]
        ran = _length(batch, left, mode)
        now, rest = _work(now, rest, ran)
        come = _join(queue, arrived, come, now)
        queue += _leave(batch, left, mode, ran, now, finished)
        for job in queue:
            waited[job] += now - before
        before = now


def _join(queue, arrived, come, now):
    """Who has arrived by now waits; how many have come so far."""
    while come < len(arrived) and arrived[come] <= now:
        queue.append(come)
        come += 1
    return come
