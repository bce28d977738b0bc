"""From time stamps to numbers: arrays in, numbers out. The one place that derives metrics.

Names follow ``vllm bench serve`` (ttft, tpot); ``normalised_latency`` is what Orca and the
vLLM paper plot. Requests that were never served (``finished_at`` is NaN) are left out of
every quantity and counted as ``lost``. Times are seconds.
"""

import math

import numpy as np
import pandas as pd

from ssjf.errors import InputError
from ssjf.request import Completions, FloatArray, IntArray

QUANTITIES = ("jct", "waiting", "ttft", "tpot", "normalised_latency", "slowdown")
LEVELS = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
CDF_PROBABILITIES = np.concatenate([np.linspace(0, 0.9, 37), 1 - np.logspace(-1, -4, 25)[1:]])
"""Where ``slowdown_quantiles`` reads: every 2.5 % up to p90, then 8 points a decade to p99.99."""


def per_request(
    completions: Completions, alone_seconds: FloatArray, warmup_fraction: float = 0.0
) -> dict[str, FloatArray]:
    """Each quantity for the served requests behind the warm-up, in order of arrival.

    ``jct`` (job completion time: finish - arrival), ``waiting`` (first scheduled - arrival),
    ``ttft`` (first token - arrival) in s; ``tpot`` in s per token after the first (NaN for
    one-token answers); ``normalised_latency`` in s per output token; ``slowdown`` is
    jct / ``alone_seconds``, the time of the request alone on the machine, shape (n,).

    ``warmup_fraction`` of the requests (of all, by arrival) are dropped. Raises InputError for
    one outside [0, 1) and for ``alone_seconds`` that are not one positive number per request.
    """
    rows = _served(completions, warmup_fraction)
    alone = np.asarray(alone_seconds, np.float64)
    if alone.shape != (len(completions),) or not (alone > 0).all():
        raise InputError(f"alone_seconds must be {len(completions)} times above 0, one per request")
    tokens = completions.requests.output_tokens[rows]
    arrived = completions.requests.arrived_at[rows]
    first, finished = completions.first_token_at[rows], completions.finished_at[rows]
    jct = finished - arrived
    gaps = np.where(tokens > 1, tokens - 1.0, np.nan)
    return {
        "jct": jct,
        "waiting": completions.scheduled_at[rows] - arrived,
        "ttft": first - arrived,
        "tpot": (finished - first) / gaps,
        "normalised_latency": jct / tokens,
        "slowdown": jct / alone[rows],
    }


def summarise(
    completions: Completions, alone_seconds: FloatArray, warmup_fraction: float = 0.0
) -> dict[str, float]:
    """One run in one row: ``{quantity}_{mean,p50,p90,p99,max}`` and totals; NaN where undefined.

    ``jain_slowdown`` is Jain's index of the slowdowns, (sum x)^2 / (n sum x^2), 1 when all are
    slowed alike (Jain, Chiu & Hawe 1984). ``completed``, ``lost`` and what ``_totals`` gives
    are of the whole run: the warm-up is dropped from the per-request quantities alone. The
    parameters and errors are those of ``per_request``.
    """
    quantities = per_request(completions, alone_seconds, warmup_fraction)
    summary = {
        f"{name}_{level}": value
        for name in QUANTITIES
        for level, value in _spread(quantities[name]).items()
    }
    slowdown = quantities["slowdown"]
    summary["jain_slowdown"] = _ratio(slowdown.sum() ** 2, len(slowdown) * (slowdown**2).sum())
    return summary | _totals(completions)


def slowdown_quantiles(
    completions: Completions, alone_seconds: FloatArray, warmup_fraction: float = 0.0
) -> tuple[FloatArray, FloatArray]:
    """The slowdown at fixed probabilities, both of shape (61,): a distribution to plot.

    Dense in the tail, up to p99.99; parameters and errors are those of ``per_request``.
    """
    slowdown = per_request(completions, alone_seconds, warmup_fraction)["slowdown"]
    return CDF_PROBABILITIES.copy(), _quantiles(np.sort(slowdown), CDF_PROBABILITIES)


def _served(completions: Completions, warmup_fraction: float) -> IntArray:
    if not 0 <= warmup_fraction < 1:
        raise InputError(f"warmup_fraction is {warmup_fraction}; it must be from 0 to below 1")
    skipped = int(warmup_fraction * len(completions))
    return skipped + np.flatnonzero(~np.isnan(completions.finished_at[skipped:]))


def _spread(values: FloatArray) -> dict[str, float]:
    ordered = np.sort(values[~np.isnan(values)])
    if not len(ordered):
        return dict.fromkeys(("mean", *LEVELS, "max"), math.nan)
    levels = zip(LEVELS, _quantiles(ordered, np.array(list(LEVELS.values()))), strict=True)
    spread = {"mean": ordered.mean(), **dict(levels), "max": ordered[-1]}
    return {name: float(value) for name, value in spread.items()}


def _quantiles(ordered: FloatArray, probabilities: FloatArray) -> FloatArray:
    """``numpy.quantile`` (linear) of values already sorted: one sort serves all levels."""
    if not len(ordered):
        return np.full(len(probabilities), np.nan)
    place = probabilities * (len(ordered) - 1)
    below = place.astype(np.int64)
    above = np.minimum(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def _totals(completions: Completions) -> dict[str, float]:
    """What describes the run as a whole.

    The makespan goes from the first arrival to the last finish. The queue depth counts
    requests between their arrival and the first time they are scheduled: its mean is over the
    makespan, its maximum over all instants, after everything that happens at the instant.
    ``mean_running`` counts requests between then and their finish.
    """
    rows = _served(completions, 0.0)
    arrived, scheduled = completions.requests.arrived_at[rows], completions.scheduled_at[rows]
    finished = completions.finished_at[rows]
    makespan = finished.max() - arrived[0] if len(rows) else math.nan
    return {
        "completed": float(len(rows)),
        "lost": float(len(completions) - len(rows)),
        "completed_per_second": _ratio(len(rows), makespan),
        "throughput_25": throughput_25(finished),
        "queue_depth_mean": _ratio((scheduled - arrived).sum(), makespan),
        "queue_depth_max": _deepest(arrived, scheduled),
        "mean_running": _ratio((finished - scheduled).sum(), makespan),
    }


def throughput_25(finished_at: FloatArray) -> float:
    """The SSJF authors' "throughput", 1/s: the first quarter of finishers over its last finish.

    With the k finish times sorted and p = (k - 1) // 4, it is p / finish[p], time counted from
    0. It says how early short requests leave, not how many are served: with the same requests
    per second of makespan it can differ by a factor of 4. Source: their code, commit 4b86686,
    model-serving/simulator.py, ``get_throughput``.
    """
    if not len(finished_at):
        return math.nan
    place = (len(finished_at) - 1) // 4  # = int(np.percentile(range(k), 25))
    return _ratio(place, np.partition(finished_at, place)[place])


def _deepest(arrived: FloatArray, scheduled: FloatArray) -> float:
    """The queue can only be deepest right after an arrival: count who has left by then."""
    if not len(arrived):
        return math.nan
    left = np.searchsorted(np.sort(scheduled), arrived, side="right")
    return float(max(0, (np.arange(1, len(arrived) + 1) - left).max()))


def _ratio(over: float, under: float) -> float:
    return float(over / under) if under > 0 else math.nan


def run_metrics(run: pd.DataFrame) -> pd.Series:
    """Metrics of one run from its rows per request; those never served are left out."""
    arrived, ended = run["arrived_at"].to_numpy(), run["finished_at"].to_numpy()
    finished = ended[~np.isnan(ended)]
    jct = (ended - arrived)[~np.isnan(ended)]
    return pd.Series(
        {
            "jct_mean": jct.mean(),
            "jct_p99": np.percentile(jct, 99),
            "throughput_25": throughput_25(finished),
            "completed_per_second": len(jct) / (finished.max() - arrived.min()),
        }
    )
