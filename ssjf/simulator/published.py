"""The SSJF paper's own simulation, rebuilt from its rules with every quirk a named option.

A job runs for a fixed duration, whatever else is in the batch; there is no prefill and no KV
memory. Three batching modes:

- ``none``: one job at a time;
- ``dynamic``: a batch runs as long as its longest member (the authors' STATIC mode);
- ``continuous``: the batch is formed anew whenever a member ends (the authors' DYNAMIC mode).

Source: the authors' public code, commit 4b86686, ``model-serving/{fcfs,sjf}{,_dynamic}.py``,
reimplemented. With every quirk off, ``continuous`` is the work-conserving, non-preemptive
multi-server queue.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

import numpy as np

from ssjf.errors import InputError, unknown
from ssjf.request import Completions, FloatArray, IntArray, Requests

MODES = ("none", "dynamic", "continuous")
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

    The workload applies the quirks of the arrivals, and the metrics that of throughput.
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
    """The whole queue is served by waiting time while its longest wait exceeds a bound."""
    guard_reads_truth: bool = True
    """The guard's relative bound is 10 times the job's true duration (a leak)."""
    drifting_clock: bool = True
    """Time is a float advanced in slices of up to 1 s: by rounding, a finished job may stay for one
    more dispatch, and an arrival at the instant of a completion may be missed."""
    quarter_throughput: bool = True
    """"Throughput" is read when the first quarter of the jobs has finished."""

    def without(self, names: Iterable[str]) -> "Quirks":
        """Return these quirks with the named ones off."""
        for name in names:
            if name not in quirk_names():
                raise unknown("quirk", name, quirk_names())
        return replace(self, **dict.fromkeys(names, False))


def quirk_names() -> tuple[str, ...]:
    """All quirks in their fixed order."""
    return tuple(f.name for f in fields(Quirks))


def duration_seconds(tokens: FloatArray | IntArray) -> FloatArray:
    """Execution time of a job, 0.1 s + 0.02 s a token, rounded to 10 ms as the authors do."""
    return np.round(START_UP_SECONDS + SECONDS_PER_TOKEN * np.asarray(tokens, np.float64), 2)


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
    expected_tokens: shape (n,), the lengths that a guard without the leak reads; by default
        ``predicted``.

    Times of a job never served (see ``Quirks.drops_last_job``) are NaN.
    """
    from ssjf.simulator.published_rules import serve_in_order, serve_shortest

    quirks = quirks or Quirks()
    if mode not in MODES:
        raise unknown("batching mode", mode, MODES)
    if policy not in POLICIES:
        raise unknown("policy of the published protocol", policy, POLICIES)
    if slots < 1:
        raise InputError(f"slots is {slots}; it must be at least 1")
    unit = 1.0 if quirks.drifting_clock else TICKS_PER_SECOND
    arrived, duration = np.array(requests.arrived_at), duration_seconds(requests.output_tokens)
    if not quirks.drifting_clock:
        arrived, duration = _arrival_ticks(arrived), np.rint(duration * unit)
    started, finished = np.full((2, len(requests)), np.nan)
    join = mode == "continuous" and not quirks.joins_on_completion_only
    rules = (MODES.index(mode), 1 if mode == "none" else slots)
    counters: dict[str, float] = {}
    if policy == "fcfs":
        timeout = FILL_TIMEOUT_SECONDS * unit * quirks.fcfs_waits_to_fill
        idled = serve_in_order(
            arrived, duration, *rules, timeout, join, quirks.drifting_clock, started, finished
        )
        counters["idle_seconds"] = idled / unit
    else:
        oracle = policy == "sjf"
        key = duration
        if not oracle:
            if predicted is None:
                raise InputError("policy ssjf needs predicted lengths; the workload has none")
            key = duration_seconds(predicted) * unit
        bound = key if expected_tokens is None else duration_seconds(expected_tokens) * unit
        dispatches, guarded = serve_shortest(
            arrived, duration, key, bound, oracle or quirks.guard_reads_truth, oracle, *rules,
            quirks.drops_last_job, quirks.free_preemption, join,
            GUARD_WAIT_SECONDS * unit * quirks.starvation_guard, GUARD_WAIT_FACTOR,
            quirks.drifting_clock, started, finished,
        )  # fmt: skip
        counters |= {"dispatches": dispatches, "guarded_dispatches": guarded}
    return _completions(requests, started / unit, finished / unit, counters)


def _arrival_ticks(seconds: FloatArray) -> FloatArray:
    """Arrivals in whole ticks; different arrivals within a tick take successive ticks."""
    ticks = np.rint(seconds * TICKS_PER_SECOND)
    before = np.cumsum(np.diff(seconds, prepend=seconds[:1]) > 0)  # distinct earlier arrivals
    return np.maximum.accumulate(ticks - before) + before


def _completions(requests, started_at, finished_at, counters) -> Completions:
    first_token_at = np.minimum(started_at + START_UP_SECONDS + SECONDS_PER_TOKEN, finished_at)
    # The drifting clock may start a job a rounding error before it arrives.
    started_at = np.maximum(started_at, requests.arrived_at)
    started_at = np.where(np.isnan(finished_at), np.nan, started_at)
    none = np.zeros(len(requests), np.int64)
    return Completions(requests, started_at, first_token_at, finished_at, none, counters)
