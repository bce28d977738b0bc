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
        """These quirks with the named ones off."""
        for name in names:
            if name not in quirk_names():
                raise unknown("quirk", name, quirk_names())
        return replace(self, **dict.fromkeys(names, False))


def quirk_names() -> tuple[str, ...]:
    """All quirks in their fixed order."""
    return tuple(f.name for f in fields(Quirks))


NO_QUIRKS = Quirks().without(quirk_names())


def duration_seconds(tokens: FloatArray | IntArray) -> FloatArray:
    """Execution time of a job, rounded to 10 ms as the authors do (0.1 s + 0.02 s a token)."""
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
    expected_tokens: shape (n,), the length a guard without the leak may use; defaults to
        ``predicted``.

    Times of a job never served (see ``Quirks.drops_last_job``) are NaN.
    """
    from ssjf.simulator.published_rules import serve_in_order, serve_shortest

    quirks = quirks or Quirks()
    _check(policy, mode, slots)
    unit = 1.0 if quirks.drifting_clock else TICKS_PER_SECOND
    arrived = _arrivals_in_units(requests.arrived_at, unit)
    duration = _in_units(duration_seconds(requests.output_tokens), unit)
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


def _check(policy: str, mode: str, slots: int) -> None:
    if mode not in MODES:
        raise unknown("batching mode", mode, MODES)
    if policy not in POLICIES:
        raise unknown("policy of the published protocol", policy, POLICIES)
    if slots < 1:
        raise InputError(f"slots is {slots}; it must be at least 1")


def _in_units(seconds: FloatArray, unit: float) -> FloatArray:
    seconds = np.asarray(seconds, np.float64)
    return seconds.copy() if unit == 1.0 else np.rint(seconds * unit)


def _arrivals_in_units(seconds: FloatArray, unit: float) -> FloatArray:
    """As ``_in_units``; what arrives within the same tick takes its turn in the next ones."""
    units = _in_units(seconds, unit)
    if unit == 1.0:
        return units
    before = np.cumsum(np.diff(seconds, prepend=seconds[:1]) > 0)  # distinct earlier arrivals
    return np.maximum.accumulate(units - before) + before


def _completions(requests, started_at, finished_at, counters) -> Completions:
    first_token_at = np.minimum(started_at + START_UP_SECONDS + SECONDS_PER_TOKEN, finished_at)
    # The drifting clock may start a job a rounding error before it arrives.
    started_at = np.maximum(started_at, requests.arrived_at)
    started_at = np.where(np.isnan(finished_at), np.nan, started_at)
    none = np.zeros(len(requests), np.int64)
    return Completions(requests, started_at, first_token_at, finished_at, none, counters)
