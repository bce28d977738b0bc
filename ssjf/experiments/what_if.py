"""What would length-aware scheduling do to this trace? One table."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ssjf.analysis import bootstrap, metrics
from ssjf.errors import InputError
from ssjf.proxy import predict
from ssjf.request import Completions, FloatArray, Requests
from ssjf.scheduler import OraclePolicy, Policy, policy
from ssjf.simulator.profile import Profile
from ssjf.simulator.server import Memory, Server
from ssjf.simulator.simulate import simulate

BATCHES = 30  # consecutive stretches of the trace that stand as repetitions


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
    baseline = fcfs(requests, model, server)
    rows = [row("fcfs", baseline, baseline, model)]
    for each in policies:
        if each.name == "fcfs":
            continue
        cost = 0.0 if isinstance(each, OraclePolicy) else predictor_seconds
        served = serve(requests, each, model, server, predicted, cost, memory)
        rows.append(row(each.name, served, baseline, model))
    return pd.DataFrame(rows)


def fcfs(requests: Requests, model: Profile, server: Server) -> Completions:
    """The baseline of every gain: first come, first served."""
    return serve(requests, policy("fcfs"), model, server, None, 0.0)


def serve(
    requests: Requests,
    each: Policy,
    model: Profile,
    server: Server,
    predicted: FloatArray | None,
    cost: float,
    memory: Memory | None = None,
) -> Completions:
    """One policy's run; ``cost`` seconds are charged to each request whose length is predicted."""
    seconds = cost if each.uses_prediction else 0.0
    return simulate(requests, each, model, server, predicted, seconds, memory)


def row(name: str, served: Completions, baseline: Completions, model: Profile) -> dict[str, Any]:
    """A row of ``compare``'s table."""
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
