"""Runs measured on vLLM; their specifications differ from simulated runs only in the engine.

One engine per deployment runs in its own process and is kept for later runs.
"""

import atexit
import warnings
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from ssjf.experiments.runs import steady
from ssjf.experiments.specs import SteadyRun, StepsRun, VllmRun
from ssjf.harness.deployment import deployment
from ssjf.harness.engine import Engine
from ssjf.request import Completions, Requests
from ssjf.simulator.profile import profile
from ssjf.simulator.server import Server

STEP_COLUMNS = ("prefill_tokens", "sequences", "context_tokens", "waiting", "running",
                "kv_blocks", "preemptions")  # fmt: skip
SWAP_COLUMNS = ("out", "back", "out_seconds", "back_seconds", "left", "blocks")


@cache
def engine(name: str, **options: Any) -> Engine:
    """The engine of a deployment, started on first use and closed at exit.

    ``options`` replace fields of the deployment.
    """
    live = Engine(deployment(name).replace(**options))
    atexit.register(live.close)
    return live


def _warn_of_precision(spec: SteadyRun) -> None:
    """Warn if the profile that sets the arrival rate was measured in another precision."""
    measured, has = profile(spec.profile).precision, deployment(str(spec.deployment)).precision
    if measured not in ("", has):
        warnings.warn(
            f"profile {spec.profile} was measured in {measured} and {spec.deployment} runs in "
            f"{has}: its utilisation is that profile's; `ssjf calibrate {spec.deployment}` "
            "measures one for this machine",
            stacklevel=2,
        )


def _serve(spec: SteadyRun, requests: Requests, server: Server, predicted, seed: int):
    """Serve one run with ``Engine.serve``."""
    _warn_of_precision(spec)
    order = steady.order_name(spec, requests, profile(spec.profile), server, predicted)
    return engine(str(spec.deployment)).serve(
        requests, order, server, predicted, spec.predictor_seconds, seed=seed
    )


def with_hardware(deployment_name: str | None, rows: pd.DataFrame) -> pd.DataFrame:
    """Attach the engine's hardware and deployment to rows as their ``environment``."""
    live = engine(str(deployment_name))
    deployed = live.deployment.as_json()
    rows.attrs["environment"] = live.hardware | {"deployment": deployed}
    return rows


def rows(spec: VllmRun) -> pd.DataFrame:
    """Make the rows of a run on vLLM, in the form of the simulator's rows."""
    return with_hardware(spec.deployment, steady.rows(spec, lambda *run: _serve(*run)[0]))


def anatomy(spec: VllmRun) -> pd.DataFrame:
    """Make one table of a run's requests and steps; column ``of`` names the kind of row."""
    parts = []
    for seed in spec.workload.seeds:
        requests, server, predicted = steady.open_loop(spec, seed)
        done, recorded, _ = _serve(spec, requests, server, predicted, seed)
        for of, part in (("request", _requests(done)), ("step", _steps(recorded))):
            parts.append(part.assign(of=of, x=np.float32(spec.rho), seed=seed, run=0))
    return with_hardware(spec.deployment, pd.concat(parts, ignore_index=True))


def _requests(done: Completions) -> pd.DataFrame:
    times = ("scheduled_at", "first_token_at", "finished_at")
    columns = {name: getattr(done.requests, name)
               for name in ("arrived_at", "prompt_tokens", "output_tokens")}  # fmt: skip
    columns |= {name: getattr(done, name) for name in times} | {"preempted": done.preemptions}
    return pd.DataFrame(columns)


def _steps(recorded: dict[str, np.ndarray]) -> pd.DataFrame:
    times = {name: recorded[name] for name in ("started_at", "ended_at")}
    counts = {name: recorded[name].astype(np.int32) for name in STEP_COLUMNS}
    return pd.DataFrame(times | counts)


def steps(spec: StepsRun) -> pd.DataFrame:
    """Record the steps of bursts: a row per step; ``x`` is the number of slots."""
    parts, bursts = [], spec.workload
    for seed, slots in product(bursts.seeds, spec.slots):
        rng = np.random.default_rng([seed, slots])
        n = bursts.per_slot * slots
        prompt = _log_uniform(rng, n, *bursts.prompt_tokens)
        output = _log_uniform(rng, n, *bursts.output_tokens)
        requests = Requests(np.zeros(n), prompt, output)
        server = steady.server_on(spec.deployment, slots)
        _, recorded, _ = engine(spec.deployment).serve(requests, "fcfs", server, seed=seed)
        parts.append(_steps(recorded).assign(x=slots, seed=seed, run=0))
    return with_hardware(spec.deployment, pd.concat(parts, ignore_index=True))


def _log_uniform(rng: np.random.Generator, n: int, low: int, high: int) -> np.ndarray:
    return np.exp(rng.uniform(np.log(low), np.log(high + 1), n)).astype(np.int64)


def swapping(spec: VllmRun) -> pd.DataFrame:
    """Measure one way of keeping preempted KV: a row per seed.

    Without ``keeps`` vLLM recomputes preempted requests.
    """
    rows = []
    live = engine(str(spec.deployment), **spec.keeps)
    for seed in spec.workload.seeds:
        requests, server, predicted = steady.open_loop(spec, seed)
        done, recorded, more = live.serve(requests, spec.policy, server, predicted, seed=seed)
        rows.append({
            "x": np.float32(spec.rho), "seed": seed, "run": 0,
            "jct_mean": (done.finished_at - requests.arrived_at).mean(),
            "busy_seconds": done.counters["busy_seconds"],
            "preemptions": int(done.preemptions.sum()),
            "prefill_tokens": int(recorded["prefill_tokens"].sum()),
            "prompt_tokens": int(requests.prompt_tokens.sum()),
            **{name: float(more.get(f"swap_{name}", 0.0)) for name in SWAP_COLUMNS},
        })  # fmt: skip
    return with_hardware(spec.deployment, pd.DataFrame(rows))
