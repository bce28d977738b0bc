"""Latencies of requests to servers, with intervals, compared with plain ``vllm serve``.

``rows`` are those of ``bench_client.measured`` with the columns ``workload`` (the load, in words)
and ``series``. All comparisons are paired. Bootstrap intervals resample seeds with all their
requests (requests of one run share a queue), or requests where there is only one seed.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from ssjf.analysis import bootstrap
from ssjf.analysis.bootstrap import Estimate
from ssjf.analysis.estimates import in_words, with_interval
from ssjf.request import FloatArray

PLAIN = "fcfs"
IN_ORDER = "served-fcfs"  # `ssjf serve` in order of arrival: overhead and no gain
LABELS = {
    PLAIN: "vllm serve",
    IN_ORDER: "ssjf serve, policy fcfs",
    "ssjf-light": "ssjf serve, policy ssjf",
    "headstart": "ssjf serve (contract, cautious)",
}
ALONE, QUEUED, BURST = "one at a time", "below saturation", "all at once"
GOAL_OVERHEAD_MS, GOAL_SHARE_PERCENT = 1.0, 0.5
GOALS_MS = {ALONE: 0.3, QUEUED: 0.6, BURST: 0.6}  # of the middleware itself
WORDS = {
    "e2el_mean": "mean E2EL (s)",
    "e2el_p99": "p99 E2EL (s)",
    "ttft_mean": "mean TTFT (s)",
    "ttft_p99": "p99 TTFT (s)",
    "tpot_ms": "TPOT (ms)",
    "requests_per_second": "requests/s",
    "overhead_ms": "middleware (ms)",
    "predictor_ms": "of which predictor (ms)",
}
COLUMNS = {"e2el": "e2el_seconds", "ttft": "ttft_seconds"}
Statistic = Callable[[FloatArray], FloatArray]
STATISTICS: dict[str, Statistic] = {
    "mean": lambda values: values.mean(axis=-1),
    "p99": lambda values: np.quantile(values, 0.99, axis=-1),
}


def estimates(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns workload, series, metric (of ``WORDS``), value, low, high."""
    records = []
    for (load, series), part in rows.groupby(["workload", "series"], sort=False):
        records += _records(load, series, {metric: _estimate(part, metric) for metric in WORDS})
    return pd.DataFrame(records)


def _records(load: str, series: str, of: dict[str, Estimate]) -> list[dict[str, object]]:
    keys: dict[str, object] = {"workload": load, "series": series}
    return [keys | {"metric": metric} | estimate._asdict() for metric, estimate in of.items()]


def _estimate(part: pd.DataFrame, metric: str) -> Estimate:
    name, _, statistic = metric.partition("_")
    if name in COLUMNS:
        values = part[COLUMNS[name]].to_numpy()
        return bootstrap.statistic(STATISTICS[statistic], values, groups=_groups(part))
    values = per_seed(part)[metric].to_numpy()
    if np.isnan(values).any():  # no middleware, or answers of one token
        return Estimate(np.nan, np.nan, np.nan)
    return bootstrap.interval(values)


def per_seed(part: pd.DataFrame) -> pd.DataFrame:
    """By seed, of one load and series: requests_per_second, tpot_ms, overhead_ms, predictor_ms.

    ``tpot_ms`` is the time per output token after the first: how fast that server ran.
    """
    decoding = part["e2el_seconds"] - part["ttft_seconds"]
    part = part.assign(decoding=decoding, behind=part["output_tokens"] - 1)
    by_seed = part.groupby("seed")
    sums = by_seed[["decoding", "behind"]].sum()
    ended = (part["arrived_at"] + part["e2el_seconds"]).groupby(part["seed"]).max()
    rate = by_seed.size() / (ended - by_seed["arrived_at"].min())
    clocks = by_seed[["overhead_ms", "predictor_ms"]].first()
    tpot = 1e3 * sums["decoding"] / sums["behind"].where(sums["behind"] > 0)
    return clocks.assign(requests_per_second=rate, tpot_ms=tpot)


def reductions(rows: pd.DataFrame) -> pd.DataFrame:
    """Reduction (%) of each series against ``vllm serve``; columns as in ``estimates``.

    Metrics: those of E2EL and TTFT, and ``requests_per_second``, whose reduction is a loss.
    """
    records = []
    for load, part in rows.groupby("workload", sort=False):
        plain = part[part["series"] == PLAIN]
        for series in part["series"].unique():
            if series != PLAIN:
                treated = part[part["series"] == series]
                records += _records(load, series, _reductions(plain, treated))
    return pd.DataFrame(records)


def _reductions(plain: pd.DataFrame, treated: pd.DataFrame) -> dict[str, Estimate]:
    estimates = {}
    for metric in list(WORDS)[:4]:
        name, _, statistic = metric.partition("_")
        pair = np.stack([part[COLUMNS[name]].to_numpy() for part in (plain, treated)])
        percent = _reduction(STATISTICS[statistic])
        estimates[metric] = bootstrap.statistic(percent, pair, groups=_groups(plain))
    rates = [per_seed(part)["requests_per_second"] for part in (plain, treated)]
    return estimates | {"requests_per_second": bootstrap.reduction(*rates)}


def _reduction(of: Statistic) -> Statistic:
    """In percent, of (..., plain and treated, n)."""
    return lambda pair: 100 * (1 - of(pair[..., 1, :]) / of(pair[..., 0, :]))


def _groups(part: pd.DataFrame) -> FloatArray | None:
    seeds = part["seed"].to_numpy()
    return seeds if len(np.unique(seeds)) > 1 else None


def table(rows: pd.DataFrame, labels: dict[str, str]) -> pd.DataFrame:
    """Format a row per load and server as ``value [low, high]``; ``labels`` name the series."""
    cells = estimates(rows)
    cells["text"] = with_interval(cells)
    keys = ["workload", "series"]
    wide = cells.pivot_table("text", keys, "metric", "first", sort=False)[list(WORDS)]
    wide = wide.rename(columns=WORDS).reset_index()
    wide.insert(2, "requests", rows.groupby(keys, sort=False).size().to_numpy())
    gains = reductions(rows).query("metric == 'e2el_mean'")
    gained = gains[keys].assign(**{"mean E2EL reduction (%)": with_interval(gains)})
    wide = wide.merge(gained, "left", keys).fillna("–")
    return wide.assign(series=wide["series"].map(labels)).rename(
        columns={"workload": "load", "series": "server"}
    )


def processor_share(samples: pd.DataFrame) -> Estimate:
    """Processor time of ``ssjf serve``'s API process beyond that of ``vllm serve``, in percent of
    the latter's engine; from the samples of a run of each (``runs.soak``)."""
    taken = []
    for name in ("vllm serve", "ssjf serve"):
        part = samples[samples["series"] == name]
        seconds = part[["cpu_seconds", "engine_cpu_seconds"]].diff().iloc[1:]
        taken.append(seconds.to_numpy(np.float64).T / part["sent"].to_numpy()[:-1])
    (before, engine), (after, _) = taken

    def percent(values: FloatArray) -> FloatArray:
        return 100 * (values[..., 1, :] - values[..., 0, :]).mean(-1) / values[..., 2, :].mean(-1)

    return bootstrap.statistic(percent, np.stack([before, after, engine]))


def goals(rows: pd.DataFrame, samples: pd.DataFrame) -> pd.DataFrame:
    """Compare the middleware's costs (ms, %) with their goals; a row per cost, with a verdict.

    TTFT at the client is compared with ``vllm serve``'s on the same requests. ``samples`` are those
    of ``processor_share``.
    """
    costs = [
        (f"middleware without its predictor, {load} (ms)", goal, _own(rows, load))
        for load, goal in GOALS_MS.items()
    ]
    alone = rows[rows["workload"] == ALONE]
    plain, in_order = (alone[alone["series"] == series] for series in (PLAIN, IN_ORDER))
    goal = GOAL_OVERHEAD_MS + float(per_seed(in_order)["predictor_ms"].mean())
    before, after = (1e3 * part["ttft_seconds"].to_numpy() for part in (plain, in_order))
    later = bootstrap.difference(before, after, groups=_groups(plain))
    costs.append((f"TTFT later at the client, {ALONE} (ms)", goal, later))
    share = "processor time with its predictor and learner, every slot busy (% of the engine's)"
    costs.append((share, GOAL_SHARE_PERCENT, processor_share(samples)))
    return pd.DataFrame(
        {
            "cost": cost,
            "goal": f"at most {goal:.3g}",
            "measured": in_words(*estimate),
            "verdict": verdict(goal, estimate),
        }
        for cost, goal, estimate in costs
    )


def verdict(goal: float, estimate: Estimate) -> str:
    """Say whether a cost meets its goal, as far as its interval decides that."""
    if np.isnan(estimate.high):
        return "not decided: there is no interval"
    if estimate.high <= goal:
        return "met"
    return "missed" if estimate.low > goal else "not decided: the interval holds the goal"


def _own(rows: pd.DataFrame, load: str) -> Estimate:
    """The middleware's time (ms) without its predictor's, over runs of every server that has it."""
    part = rows[(rows["workload"] == load) & (rows["series"] != PLAIN)]
    runs = part.groupby(["series", "seed"])[["overhead_ms", "predictor_ms"]].first().reset_index()
    own = (runs["overhead_ms"] - runs["predictor_ms"]).to_numpy(np.float64)
    return bootstrap.interval(own, groups=runs["seed"])
