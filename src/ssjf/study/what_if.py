"""What would length-aware scheduling do to this trace? One table and one sentence."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ssjf.engine.memory import Memory
from ssjf.engine.profile import Profile
from ssjf.engine.server import Server
from ssjf.engine.simulator import simulate
from ssjf.errors import InputError
from ssjf.policy import OraclePolicy, Policy, policy
from ssjf.proxy import predict
from ssjf.request import Completions, Requests
from ssjf.study import bootstrap, metrics

ORACLES = ("sjf", "srpt")  # no advice: they know what nobody does
BATCHES = 30  # consecutive stretches of the trace that stand as repetitions
NO_QUEUE = 0.05  # mean queue depth below which there is nothing to reorder


def rescaled(requests: Requests, scale: float) -> Requests:
    """The same requests arriving ``scale`` times as fast."""
    if not 0 < scale < 1e9:
        raise InputError(f"scale is {scale}; it must be above 0 and below 1e9")
    return requests.arriving(requests.arrived_at / scale)


def offered_load(requests: Requests, model: Profile, server: Server) -> float:
    """ρ: the trace's rate over the throughput of the same requests arriving all at once.

    Infinite where all arrive at one instant; NaN for one request, which has no rate.
    """
    burst = requests.arriving(np.zeros(len(requests)))
    flat_out = simulate(burst, policy("fcfs"), model, server)
    span = requests.arrived_at[-1] - requests.arrived_at[0]
    if span == 0:
        return float("inf") if len(requests) > 1 else float("nan")
    rate = (len(requests) - 1) / span
    return float(rate * flat_out.finished_at.max() / len(requests))


def compare(
    requests: Requests,
    policies: list[Policy],
    model: Profile,
    server: Server,
    predictor: str,
    seed: int = 0,
    predictor_seconds: float = 0.0,
    memory: Memory | None = None,
) -> pd.DataFrame:
    """One row per policy; FCFS with recomputation, the baseline of every gain, comes first.

    ``memory`` says what becomes of requests that the other policies preempt.

    Columns: policy; jct_mean, jct_p99, ttft_mean, ttft_p99 (seconds), slowdown_mean,
    slowdown_p99, queue_depth_mean, queue_depth_max, preemptions, and gain_percent with
    gain_low and gain_high, the fall of the mean JCT against FCFS.
    """
    predicted = predict(predictor, requests, np.random.default_rng(seed))
    baseline = _serve(requests, policy("fcfs"), model, server, None, 0.0)
    rows = [_row("fcfs", baseline, baseline, model)]
    for each in policies:
        if each.name == "fcfs":
            continue
        cost = 0.0 if isinstance(each, OraclePolicy) else predictor_seconds
        served = _serve(requests, each, model, server, predicted, cost, memory)
        rows.append(_row(each.name, served, baseline, model))
    return pd.DataFrame(rows)


def _serve(
    requests, each: Policy, model, server, predicted, cost: float, memory: Memory | None = None
) -> Completions:
    seconds = cost if each.uses_prediction else 0.0
    return simulate(requests, each, model, server, predicted, seconds, memory)


def _row(name: str, served: Completions, baseline: Completions, model: Profile) -> dict[str, Any]:
    requests = served.requests
    alone = model.alone_seconds(requests.prompt_tokens, requests.output_tokens)
    found = metrics.summarise(served, alone)
    kept = [f"{q}_{s}" for q in ("jct", "ttft", "slowdown") for s in ("mean", "p99")]
    gain = _gain(served, baseline)
    return {
        "policy": name,
        **{key: found[key] for key in (*kept, "queue_depth_mean", "queue_depth_max")},
        "completed_per_second": found["completed_per_second"],
        "preemptions": served.counters["preemptions"],
        "gain_percent": gain.value,
        "gain_low": gain.low,
        "gain_high": gain.high,
    }


def _gain(served: Completions, baseline: Completions) -> bootstrap.Estimate:
    """Paired over consecutive stretches of the trace: neighbours in a queue are not independent."""
    arrived = served.requests.arrived_at
    batches = max(1, min(BATCHES, len(arrived) // 10))
    means = [bootstrap.batch_means(s.finished_at - arrived, batches) for s in (baseline, served)]
    before, after = (np.mean(s.finished_at - arrived) for s in (baseline, served))
    return bootstrap.reduction(*means)._replace(value=float(100 * (1 - after / before)))


def verdict(table: pd.DataFrame, rho: float) -> str:
    """One sentence: would length-aware order help here, and what does it cost the tail?"""
    fcfs = table.iloc[0]
    depth = f"ρ {rho:.2f}, mean queue depth {fcfs.queue_depth_mean:.1f} under FCFS"
    others = table[~table["policy"].isin(["fcfs", *ORACLES])]
    others = others if len(others) else table.iloc[1:]
    if others.empty:
        return f"Only FCFS was asked for ({depth})."
    if fcfs.queue_depth_mean < NO_QUEUE:
        return f"There is hardly a queue to reorder here ({depth}), so every order is FCFS."
    best = others.loc[others["gain_percent"].idxmax()]
    tail = 100 * (best.jct_p99 / fcfs.jct_p99 - 1)
    return (
        f"Length-aware order {_helps(best)}: {best.policy} {_moves('mean JCT', -best.gain_percent)}"
        f" ({_interval(best)}) and {_moves('its p99', tail)} ({depth}"
        + ("; overloaded, so waits grow for as long as the trace lasts)." if rho >= 1 else ").")
    )


def _helps(best: pd.Series) -> str:
    if best.gain_low > 0:
        return "would help here"
    return "would not help here" if best.gain_high <= 0 else "would not surely help here"


def _interval(best: pd.Series) -> str:
    if np.isnan(best.gain_low):
        return "too few requests for an interval"
    low, high = (round(gain) for gain in (best.gain_low, best.gain_high))
    return f"95 % interval {low} to {high}"


def _moves(what: str, percent: float) -> str:
    return f"{'raises' if percent > 0 else 'lowers'} {what} by {abs(percent):.0f} %"


def with_slots(server: Server, slots: int | None) -> Server:
    """The server with so many slots, and a token budget that covers them."""
    if slots is None:
        return server
    return replace(server, slots=slots, token_budget=max(server.token_budget, slots))


DEFAULT_PREDICTOR = "noise:0.5"


def predictor_for(requests: Requests, asked: str | None) -> str:
    """The predictor asked for; by default the trace's own column, else noise about the truth."""
    own = "column:predicted_tokens"
    if asked is None:
        return own if "predicted_tokens" in requests.predictions else DEFAULT_PREDICTOR
    if asked == "column" and "predicted_tokens" not in requests.predictions:
        raise InputError(
            "predictor `column` needs a column predicted_tokens, and the trace has none"
        )
    return own if asked == "column" else asked
