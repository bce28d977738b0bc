"""From a specification to its rows: build the workload, serve it, measure."""

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd

from ssjf.engine.profile import Profile, profile
from ssjf.engine.published import Quirks, duration_seconds, serve
from ssjf.engine.server import Server
from ssjf.engine.simulator import simulate
from ssjf.engine.vllm.deployment import deployment
from ssjf.errors import InputError, unknown
from ssjf.policy import policy
from ssjf.proxy import predict
from ssjf.request import Completions, Requests
from ssjf.study import metrics, theory
from ssjf.study.draws import draw, small_runs, to_requests, whole_second_poisson
from ssjf.study.experiments import WORKLOAD_KEYS
from ssjf.workload import arrivals, lengths
from ssjf.workload.boxes import llm_boxes

Spec = dict[str, Any]
Run = tuple[float, int, int, Requests]  # x, seed, run, what arrives

APART = {
    "training": "proxy_runs:predictions",
    "transfer": "transfer:measured",
    "drift": "drift:measured",
    "second-answers": "second_answers:rows",
    "cost": "proxy_cost:costs",
    "latency": "proxy_cost:latencies",
    "vllm": "on_vllm:rows",
    "vllm-steps": "on_vllm:steps",
    "vllm-anatomy": "on_vllm:anatomy",
    "vllm-swap": "on_vllm:swapping",
    "serve-load": "load:rows",
    "alise-curve": "alise:curve",
    "alise-limit": "alise:limits",
}
"""Engines with a module of their own, imported when they run, and what in it gives the rows."""

STREAMS = {"lengths": 0, "arrivals": 1, "predictor": 2, "jitter": 3}


def execute(spec: Spec) -> pd.DataFrame:
    """All rows of a run: one per repetition, or one per request where ``detail`` says so."""
    if spec["engine"] in APART:
        module, function = APART[spec["engine"]].split(":")
        return getattr(import_module(f"ssjf.study.{module}"), function)(spec)
    engines = {"published": _published, "simulator": _steady}
    if spec["engine"] not in engines:
        raise unknown("engine", spec["engine"], [*engines, *APART])
    return _table(spec, list(engines[spec["engine"]](spec)))


def _table(spec: Spec, parts: list[Any]) -> pd.DataFrame:
    if spec["detail"] == "requests":
        return pd.concat(parts, ignore_index=True)
    rows = pd.DataFrame(parts)
    for name in rows.columns.difference(["x", "seed", "run"]):
        rows[name] = rows[name].astype(np.float32)
    return rows.astype({"x": np.float32, "seed": np.int32, "run": np.int32})


def _row(spec: Spec, x, seed, run, measured: Completions, alone) -> Any:
    if spec["detail"] == "requests":
        return _request_rows(x, seed, run, measured)
    values = metrics.summarise(measured, alone, spec.get("warmup_fraction", 0.0))
    if "columns" in spec:
        values["preemptions"] = float(measured.preemptions.sum())
        values = {name: values[name] for name in spec["columns"]}
    return {"x": x, "seed": seed, "run": run, **values}


def _request_rows(x, seed, run, measured: Completions) -> pd.DataFrame:
    requests = measured.requests
    return pd.DataFrame(
        {
            "x": np.float32(x),
            "seed": np.int32(seed),
            "run": np.int32(run),
            "arrived_at": requests.arrived_at,
            "output_tokens": requests.output_tokens.astype(np.int32),
            "scheduled_at": measured.scheduled_at,
            "first_token_at": measured.first_token_at,
            "finished_at": measured.finished_at,
        }
    )


# --- the published protocol: many small runs of the authors' simulation -----------------------


def _published(spec: Spec) -> Iterator[Any]:
    quirks = Quirks().without(spec.get("quirks_off", []))
    for x, seed, run, requests in _small_runs(spec["workload"], quirks):
        rng = np.random.default_rng([seed, run, STREAMS["predictor"]])
        predicted = predict(spec["predictor"], requests, rng) if "predictor" in spec else None
        expected = predict(spec["expected"], requests, rng) if "expected" in spec else None
        slots = spec["slots"] if "slots" in spec else int(x)
        measured = serve(requests, spec["policy"], spec["mode"], slots, predicted, expected, quirks)
        alone = duration_seconds(requests.output_tokens)
        yield _row(spec, x, seed, run, measured, alone)


def _small_runs(workload: Spec, quirks: Quirks) -> Iterator[Run]:
    if workload["draw"] == "llm-boxes":
        yield from _box_runs(workload, quirks)
        return
    options = {
        key: value for key, value in workload.items() if key not in ("scales", *WORKLOAD_KEYS)
    }
    for x, seed, run, requests in small_runs(draw(options)):
        if workload["draw"] == "trace-windows":
            for scale in workload["scales"]:
                yield scale, seed, run, requests.arriving(_scaled(requests, scale, quirks))
        else:
            arrived = _arrivals(workload["draw"], requests.arrived_at, quirks, [seed, run, int(x)])
            yield x, seed, run, requests.arriving(arrived)


def _arrivals(kind: str, drawn: np.ndarray, quirks: Quirks, seed: list[int]) -> np.ndarray:
    """The arrivals of a draw, with or without the quirk that bears on them."""
    if kind == "cv-sweep":
        gaps = np.diff(drawn, prepend=0.0)
        return np.cumsum(np.sort(gaps)) if quirks.sorted_gaps else drawn
    if quirks.whole_second_arrivals:
        return drawn
    # Given its counts per second, a Poisson process is uniform within each second.
    return np.sort(drawn + np.random.default_rng([*seed, STREAMS["jitter"]]).random(len(drawn)))


def _scaled(requests: Requests, scale: float, quirks: Quirks) -> np.ndarray:
    """Azure offsets in ms: read as seconds and rounded to 0.1 (the quirk), or taken as ms."""
    if quirks.milliseconds_as_seconds:
        return np.round(requests.arrived_at / scale, 1)
    return requests.arrived_at / 1000 / scale


def _box_runs(workload: Spec, quirks: Quirks) -> Iterator[Run]:
    """Runs whose lengths are drawn from the box-plot statistics of one LLM."""
    low, q1, median, q3, high = llm_boxes().loc[workload["llm"]]
    n, rate = workload["jobs"], workload["rate"]
    for seed in workload["seeds"]:
        for run in range(workload["runs"]):
            drawn = whole_second_poisson(np.random.RandomState([seed, run]), rate, n)
            rng = np.random.default_rng([seed, run, STREAMS["lengths"]])
            output = lengths.from_quartiles(n, low, q1, median, q3, high, rng)
            requests = Requests(drawn, np.ones_like(output), output)
            yield 0.0, seed, run, requests.arriving(_arrivals("", drawn, quirks, [seed, run, 0]))


# --- the steady-state protocol: long runs of the iteration-level simulator --------------------


def steady(spec: Spec) -> pd.DataFrame:
    """The rows of an open-loop run, simulated or on vLLM."""
    return _table(spec, list(_steady(spec)))


def _steady(spec: Spec) -> Iterator[Any]:
    model = profile(spec["profile"])
    for seed in spec["workload"]["seeds"]:
        requests, server, predicted = open_loop(spec, seed)
        measured = _serve(spec, requests, server, predicted, seed)
        alone = model.alone_seconds(requests.prompt_tokens, requests.output_tokens)
        row = _row(spec, spec["rho"], seed, 0, measured, alone)
        if spec.get("slowdown_quantiles"):
            grid, values = metrics.slowdown_quantiles(measured, alone, spec["warmup_fraction"])
            row |= {f"slowdown_q{p:.6f}": v for p, v in zip(grid, values, strict=True)}
        yield row


def _serve(spec: Spec, requests: Requests, server: Server, predicted, seed: int) -> Completions:
    if spec["engine"] == "vllm":
        from ssjf.study import on_vllm

        return on_vllm.serve(spec, requests, server, predicted, seed)[0]
    seconds = spec.get("predictor_seconds", 0.0)
    model = profile(spec["profile"])
    return simulate(requests, policy(spec["policy"]), model, server, predicted, seconds)


def open_loop(spec: Spec, seed: int) -> tuple[Requests, Server, Any]:
    """What arrives at utilisation ``rho``, the server, and what is predicted (None without).

    The same requests and gaps at every load: a Poisson stream, or what ``arrivals`` of the
    workload says.
    """
    workload, model, server = spec["workload"], profile(spec["profile"]), server_of(spec)
    rng = np.random.default_rng([seed, STREAMS["lengths"]])
    n = workload.get("requests") or workload["requests_per_slot"] * server.slots
    if workload["draw"] == "synthetic":
        requests = lengths.synthetic(n, rng)
    else:
        pool = _prompted(workload, to_requests(draw(workload["pool"])))
        requests = pool.take(rng.integers(0, len(pool), n))
    if workload.get("rho_of") == "saturation":
        rate = _positive_rho(spec["rho"]) * saturation_rate(pool, model, server)
    else:
        alone = model.alone_seconds(requests.prompt_tokens, requests.output_tokens).mean()
        rate = _steady_rate(spec["rho"], float(alone), server.running_slots)
    arriving = requests.arriving(_gaps(workload.get("arrivals", {}), n, seed) / rate)
    rng = np.random.default_rng([seed, STREAMS["predictor"]])
    predicted = predict(spec["predictor"], arriving, rng) if "predictor" in spec else None
    return arriving, server, predicted


def _prompted(workload: Spec, pool: Requests) -> Requests:
    """Prompts all of one length, where the workload says so."""
    if "prompt_tokens" not in workload:
        return pool
    return replace(pool, prompt_tokens=np.full(len(pool), workload["prompt_tokens"]))


def server_of(spec: Spec) -> Server:
    """The server of a run; what it leaves open is the deployment's, where there is one."""
    given = spec.get("server", {}) | {"slots": spec["slots"]}
    if "deployment" in spec:
        has = deployment(spec["deployment"])
        names = ("kv_tokens", "block_tokens", "token_budget")
        given = {name: getattr(has, name) for name in names} | given
    return Server(**given)


SATURATING = 5000


def saturation_rate(pool: Requests, model: Profile, server: Server) -> float:
    """Requests/s that the server completes when all are there from the start, FCFS, simulated.

    Unlike slots / mean service time alone it counts what a larger batch, prefills and short KV
    memory cost. ``SATURATING`` requests are drawn from the pool, always the same.
    """
    rows = np.random.default_rng(0).integers(0, len(pool), SATURATING)
    requests = pool.take(rows).arriving(np.zeros(SATURATING))
    done = simulate(requests, policy("fcfs"), model, server)
    return SATURATING / float(done.finished_at.max())


def _positive_rho(rho: float) -> float:
    if not 0 < rho <= 2:
        raise InputError(f"rho is {rho:g}; of a finite run it must be above 0 and at most 2")
    return rho


def _gaps(options: Spec, n: int, seed: int) -> np.ndarray:
    """Arrivals at a mean rate of one a second: Poisson, Gamma gaps (``cv``), or a trace's."""
    rng = np.random.default_rng([seed, STREAMS["arrivals"]])
    if "trace" in options:
        drawn = draw({"draw": "trace-gaps", "name": options["trace"], "requests": n, "seed": seed})
        return drawn["arrived_at"].to_numpy()
    if "cv" in options:
        return arrivals.gamma(n, 1.0, options["cv"], rng)
    return np.cumsum(rng.exponential(1.0, n))


def _steady_rate(rho: float, alone_seconds: float, slots: int) -> float:
    """The arrival rate that gives ``rho``, which must leave the queue a steady state."""
    if not 0 < rho < 1:
        limit = theory.rate_for(1.0, alone_seconds, slots)
        raise InputError(
            f"rho is {rho:g}; a steady state needs one above 0 and below 1, here a rate below "
            f"{limit:.6g} requests/s"
        )
    return theory.rate_for(rho, alone_seconds, slots)
