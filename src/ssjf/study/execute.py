"""From a specification to its rows: build the workload, serve it, measure."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd

from ssjf.engine.profile import Profile, profile
from ssjf.engine.published import Quirks, duration_seconds, serve
from ssjf.engine.server import Server
from ssjf.engine.simulator import simulate
from ssjf.errors import InputError, unknown
from ssjf.policy import policy
from ssjf.proxy import predict
from ssjf.request import Completions, Requests
from ssjf.study import metrics, theory
from ssjf.study.draws import draw, small_runs, to_requests, whole_second_poisson
from ssjf.study.experiments import WORKLOAD_KEYS
from ssjf.workload import lengths
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
    parts = list(engines[spec["engine"]](spec))
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


def _steady(spec: Spec) -> Iterator[Any]:
    model = profile(spec["profile"])
    server = Server(**spec.get("server", {}) | {"slots": spec["slots"]})
    for seed in spec["workload"]["seeds"]:
        requests = _open_loop(spec, seed, model, server)
        rng = np.random.default_rng([seed, STREAMS["predictor"]])
        predicted = predict(spec["predictor"], requests, rng) if "predictor" in spec else None
        measured = simulate(
            requests, policy(spec["policy"]), model, server, predicted,
            spec.get("predictor_seconds", 0.0),
        )  # fmt: skip
        alone = model.alone_seconds(requests.prompt_tokens, requests.output_tokens)
        row = _row(spec, spec["rho"], seed, 0, measured, alone)
        if spec.get("slowdown_quantiles"):
            grid, values = metrics.slowdown_quantiles(measured, alone, spec["warmup_fraction"])
            row |= {f"slowdown_q{p:.6f}": v for p, v in zip(grid, values, strict=True)}
        yield row


def _open_loop(spec: Spec, seed: int, model: Profile, server: Server) -> Requests:
    """A long Poisson stream at utilisation ``rho``; the same requests and gaps at every load."""
    workload = spec["workload"]
    rng = np.random.default_rng([seed, STREAMS["lengths"]])
    n = workload["requests"]
    if workload["draw"] == "synthetic":
        requests = lengths.synthetic(n, rng)
    else:
        pool = to_requests(draw(workload["pool"]))
        requests = pool.take(rng.integers(0, len(pool), n))
    alone = model.alone_seconds(requests.prompt_tokens, requests.output_tokens).mean()
    rate = _steady_rate(spec["rho"], float(alone), server.running_slots)
    gaps = np.random.default_rng([seed, STREAMS["arrivals"]]).exponential(1.0, n)
    return requests.arriving(np.cumsum(gaps) / rate)


def _steady_rate(rho: float, alone_seconds: float, slots: int) -> float:
    """The arrival rate that gives ``rho``, which must leave the queue a steady state."""
    if not 0 < rho < 1:
        limit = theory.rate_for(1.0, alone_seconds, slots)
        raise InputError(
            f"rho is {rho:g}; a steady state needs one above 0 and below 1, here a rate below "
            f"{limit:.6g} requests/s"
        )
    return theory.rate_for(rho, alone_seconds, slots)
