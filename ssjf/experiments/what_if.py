"""``ssjf simulate``: compare policies on a trace in one table, and recommend in one sentence."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ssjf.analysis import bootstrap, metrics
from ssjf.errors import InputError
from ssjf.proxy import io, predict
from ssjf.proxy.refit import as_served
from ssjf.request import Completions, FloatArray, Requests
from ssjf.scheduler import OraclePolicy, Policy, policy
from ssjf.simulator.contract import Contract, Shadow, trials, tuned
from ssjf.simulator.profile import Profile
from ssjf.simulator.server import Memory, Server
from ssjf.simulator.simulate import simulate

Serve = Callable[..., Completions]
BATCHES = 30  # consecutive parts of the trace that serve as repetitions
DEFAULT_PREDICTOR = "noise:0.5"
CONTRACT = Contract()
NO_QUEUE = 0.05  # mean queue depth below which there is nothing to reorder
ORACLES = ("sjf", "srpt")  # they know the true lengths
METRICS = ("jct_mean", "jct_p99", "jct_p99.9", "jct_max", "ttft_mean", "ttft_p99",
           "slowdown_mean", "slowdown_p99", "queue_depth_mean", "queue_depth_max",
           "completed_per_second")  # fmt: skip


def rescaled(requests: Requests, scale: float) -> Requests:
    """The same requests, arriving ``scale`` times as fast."""
    if not 0 < scale < 1e9:
        raise InputError(f"scale is {scale}; it must be above 0 and below 1e9")
    return requests.arriving(requests.arrived_at / scale)


def with_slots(server: Server, slots: int | None) -> Server:
    """The server with another number of slots, and a token budget of at least that."""
    if slots is None:
        return server
    return replace(server, slots=slots, token_budget=max(server.token_budget, slots))


def predictor_for(requests: Requests, name: str | None) -> str:
    """The predictor's full name; by default the trace's column, or else the truth with noise."""
    own = "column:predicted_tokens"
    if name is None:
        return own if "predicted_tokens" in requests.predictions else DEFAULT_PREDICTOR
    if name == "column" and "predicted_tokens" not in requests.predictions:
        raise InputError("predictor `column` needs a column predicted_tokens; the trace has none")
    return own if name == "column" else name


def learning(
    requests: Requests, prompts: Sequence[str], model: Profile, server: Server,
    serve: Serve = simulate,
) -> Requests:  # fmt: skip
    """The requests with predictions made at their arrival by the shipped proxy, refitted to the
    requests that had finished by then under FCFS."""
    finished_at = serve(requests, policy("fcfs"), model, server).finished_at
    tokens = as_served(prompts, requests.output_tokens, io.load(io.BUILTIN),
                       requests.arrived_at, finished_at)  # fmt: skip
    return replace(requests, predictions={"predicted_tokens": tokens})


@dataclass(frozen=True)
class WhatIf:
    """A trace on a server, to be served by different policies.

    predictor_seconds: charged to each request whose length is predicted. memory: options for
    preempted requests. serve: ``simulate``, or a function with its parameters (a cluster).
    """

    requests: Requests
    model: Profile
    server: Server
    predictor: str = "oracle"
    seed: int = 0
    predictor_seconds: float = 0.0
    memory: Memory | None = None
    serve: Serve = simulate

    @cached_property
    def predicted(self) -> FloatArray:
        """Predicted tokens or classes, shape (n,)."""
        return predict(self.predictor, self.requests, np.random.default_rng(self.seed))

    @cached_property
    def fcfs(self) -> Completions:
        """The baseline of every gain: first come, first served, with recomputation."""
        return self.serve(self.requests, policy("fcfs"), self.model, self.server, self.predicted)

    @cached_property
    def offered_load(self) -> float:
        """ρ: the trace's rate over the throughput of the same requests arriving all at once;
        infinite if all arrive at one instant, NaN for a single request."""
        n, arrived_at = len(self.requests), self.requests.arrived_at
        burst = self.requests.arriving(np.zeros(n))
        flat_out = self.serve(burst, policy("fcfs"), self.model, self.server, self.predicted)
        span = arrived_at[-1] - arrived_at[0]
        if span == 0:
            return float("inf") if n > 1 else float("nan")
        return float((n - 1) / span * flat_out.finished_at.max() / n)

    def compare(self, policies: Sequence[Policy]) -> pd.DataFrame:
        """Serve the trace by each policy: one row per policy, FCFS first.

        Columns: policy; jct_mean, jct_p99, jct_p99.9, jct_max, ttft_mean, ttft_p99 (seconds),
        slowdown_mean, slowdown_p99, queue_depth_mean, queue_depth_max, completed_per_second,
        preemptions, and gain_percent with gain_low and gain_high, the reduction of FCFS's mean JCT.
        """
        rows = [self._row("fcfs", self.fcfs)]  # it also checks the predictions
        for each in policies:
            if each.name != "fcfs":
                free = isinstance(each, OraclePolicy) or not each.uses_prediction
                seconds = 0.0 if free else self.predictor_seconds
                served = self.serve(self.requests, each, self.model, self.server, self.predicted,
                                    seconds, self.memory)  # fmt: skip
                rows.append(self._row(each.name, served))
        return pd.DataFrame(rows)

    def under(self, contract: Contract) -> pd.DataFrame:
        """Find the policy of best mean that keeps a contract, among those of a server's tuner.

        Returns its row as in ``compare``, with its full name as ``order``, or an empty table.
        """
        few, no_queue = len(self.requests) < 2 * BATCHES, Shadow.of(self.fcfs).wait == 0
        if few or no_queue or self.predicted.min() <= 0:  # or class ids
            return pd.DataFrame()
        _, *tried = trials(self.requests, self.predicted, self.model, self.server, contract,
                           serve=self.serve)  # fmt: skip
        kept = [each for each in tried if each.p99 <= contract.p99 and each.p999 <= contract.p999]
        if not kept or kept[0].gain_percent <= 0:
            return pd.DataFrame()
        numbers = kept[0].parameters
        served = self.serve(self.requests, tuned(numbers), self.model, self.server,
                            self.predicted, self.predictor_seconds)  # fmt: skip
        name = f"headroom:{','.join(f'{each:.6g}' for each in numbers)}"
        return pd.DataFrame([self._row("headroom", served) | {"order": name}])

    def _row(self, name: str, served: Completions) -> dict[str, Any]:
        prompt_tokens, output_tokens = self.requests.prompt_tokens, self.requests.output_tokens
        values = metrics.summarise(served, self.model.alone_seconds(prompt_tokens, output_tokens))
        gain = self._gain(served)
        return {
            "policy": name,
            **{key: values[key] for key in METRICS},
            "preemptions": served.counters["preemptions"],
            "gain_percent": gain.value,
            "gain_low": gain.low,
            "gain_high": gain.high,
        }

    def _gain(self, served: Completions) -> bootstrap.Estimate:
        """Paired over parts of the trace, since neighbours in a queue are not independent."""
        arrived = self.requests.arrived_at
        batches = max(1, min(BATCHES, len(arrived) // 10))
        times = [done.finished_at - arrived for done in (self.fcfs, served)]
        means = [bootstrap.batch_means(each, batches) for each in times]
        before, after = map(np.mean, times)
        return bootstrap.reduction(*means)._replace(value=float(100 * (1 - after / before)))


@dataclass(frozen=True)
class Recommendation:
    """Advice for a trace: an action (``switch on``, ``contract`` or ``leave off``), the name of the
    recommended policy, if any, and a sentence with its gain and tail."""

    action: str
    policy: str | None
    sentence: str


def recommend(
    table: pd.DataFrame, rho: float, under: pd.DataFrame | None = None,
    contract: Contract = CONTRACT,
) -> Recommendation:  # fmt: skip
    """Recommend from a table of ``compare``, the load, and the row of ``under`` for the contract.

    Of the policies with a sure gain (interval above 0) that keep the contract, the one with the
    lowest mean JCT is recommended; an oracle only if no other policy was compared.
    """
    fcfs = table.iloc[0]
    load = f"ρ {rho:.2f}, mean queue depth {fcfs.queue_depth_mean:.1f} under FCFS"
    load += "; overloaded, so waits grow for as long as the trace lasts" if rho >= 1 else ""
    others = table[~table["policy"].isin(["fcfs", *ORACLES])]
    others = others if len(others) else table.iloc[1:]
    if others.empty:
        return Recommendation("leave off", None, f"Only FCFS was asked for ({load}).")
    if fcfs.queue_depth_mean < NO_QUEUE:
        why = f"there is hardly a queue to reorder ({load}), so every order is FCFS"
        return Recommendation("leave off", None, f"Leave it off: {why}.")
    best = others.loc[others["gain_percent"].idxmax()]
    effect = _effect(best, fcfs)
    if not best.gain_low > 0:
        return Recommendation("leave off", None, f"Leave it off: {effect} ({load}).")
    if _keeps(best, fcfs, contract):
        sentence = f"Switch it on: {effect} ({load})."
        return Recommendation("switch on", best.policy, sentence)
    rest = others if under is None else pd.concat([others, under], ignore_index=True)
    kept = rest[(rest["gain_low"] > 0) & _keeps(rest, fcfs, contract)]
    if kept.empty:
        return Recommendation(
            "leave off", None,
            f"Leave it off, unless the mean alone matters: {effect}, and no order gains surely "
            f"within the contract {contract} ({load}).",
        )  # fmt: skip
    chosen = kept.loc[kept["gain_percent"].idxmax()]
    order = chosen.get("order")
    if not isinstance(order, str):
        mean = f"{best.policy}, best by mean, {_moves('its p99', _above(best, fcfs, 'jct_p99'))}"
        sentence = f"Switch it on: {_effect(chosen, fcfs)}; {mean} ({load})."
        return Recommendation("switch on", chosen.policy, sentence)
    return Recommendation(
        "contract", order,
        f"Switch it on with a contract, `ssjf serve --contract {contract}`: "
        f"{_effect(chosen, fcfs)}; without it {effect} ({load}).",
    )  # fmt: skip


def _keeps(row, fcfs: pd.Series, contract: Contract):
    """Is the tail within the contract?"""
    high = row["jct_p99"] <= contract.p99 * fcfs["jct_p99"]
    return high & (row["jct_p99.9"] <= contract.p999 * fcfs["jct_p99.9"])


def _effect(row: pd.Series, fcfs: pd.Series) -> str:
    low, high = row.gain_low, row.gain_high
    interval = "too few requests for an interval"
    if not np.isnan(low):
        interval = f"95 % interval {round(low)} to {round(high)}"
    tails = [_moves(f"its {name}", _above(row, fcfs, f"jct_{name}")) for name in ("p99", "p99.9")]
    mean = _moves("mean JCT", -row.gain_percent)
    return f"{row.policy} {mean} ({interval}), {' and '.join(tails)}"


def _above(row, fcfs: pd.Series, metric: str):
    """Percent by which a metric is above FCFS's."""
    return 100 * (row[metric] / fcfs[metric] - 1)


def _moves(what: str, percent: float) -> str:
    if abs(percent) < 0.5:
        return f"leaves {what} as it is"
    return f"{'raises' if percent > 0 else 'lowers'} {what} by {abs(percent):.0f} %"
