"""Runs measured on vLLM, with the specification of a simulated run but for the engine.

One engine per deployment is kept for the runs that follow, in a process of its own.
"""

import atexit
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from ssjf.experiments.open_loop import open_loop, server_on
from ssjf.experiments.runs import steady
from ssjf.experiments.specs import SteadyRun, StepsRun, VllmRun
from ssjf.harness.deployment import deployment
from ssjf.harness.engine import Engine
from ssjf.request import Completions, Requests
from ssjf.simulator.server import Server

STEP_COLUMNS = ("prefill_tokens", "sequences", "context_tokens", "waiting", "running",
                "kv_blocks", "preemptions")  # fmt: skip
SWAP_COLUMNS = ("out", "back", "out_seconds", "back_seconds", "left", "blocks")


@cache
def engine(name: str, **options: Any) -> Engine:
    """The live engine of a deployment, started on first use, ended with this process.

    ``options`` replace fields of the deployment.
    """
    found = Engine(deployment(name).replace(**options))
    atexit.register(found.close)
    return found


def serve(spec: SteadyRun, requests: Requests, server: Server, predicted, seed: int):
    """What ``Engine.serve`` gives of one run."""
    return engine(str(spec.deployment)).serve(
        requests, spec.policy, server, predicted, spec.predictor_seconds, seed=seed
    )


def rows(spec: VllmRun) -> pd.DataFrame:
    """As the simulator's rows of this specification, with what it ran on as ``environment``."""
    return _with_hardware(spec, steady.rows(spec, _measured))


def _measured(
    spec: SteadyRun, requests: Requests, server: Server, predicted, seed: int
) -> Completions:
    return serve(spec, requests, server, predicted, seed)[0]


def anatomy(spec: VllmRun) -> pd.DataFrame:
    """Requests and steps of one run in one table; ``of`` tells which a row is."""
    found = []
    for seed in spec.workload.seeds:
        requests, server, predicted = open_loop(spec, seed)
        measured, recorded, _ = serve(spec, requests, server, predicted, seed)
        for of, part in (("request", _requests(measured)), ("step", _steps(recorded))):
            found.append(part.assign(of=of, x=np.float32(spec.rho), seed=seed, run=0))
    return _with_hardware(spec, pd.concat(found, ignore_index=True))


def steps(spec: StepsRun) -> pd.DataFrame:
    """The record of steps of bursts: a row per step, ``x`` the slots that it ran with."""
    found = []
    for seed in spec.workload.seeds:
        for slots in spec.slots:
            rng = np.random.default_rng([seed, slots])
            n = spec.workload.per_slot * slots
            prompt, output = (_between(rng, n, *getattr(spec.workload, key))
                              for key in ("prompt_tokens", "output_tokens"))  # fmt: skip
            requests = Requests(np.zeros(n), prompt, output)
            server = server_on(spec.deployment, slots)
            _, recorded, _ = engine(spec.deployment).serve(requests, "fcfs", server, seed=seed)
            found.append(_steps(recorded).assign(x=slots, seed=seed, run=0))
    return _with_hardware(spec, pd.concat(found, ignore_index=True))


def _between(rng: np.random.Generator, n: int, low: int, high: int) -> np.ndarray:
    """Log-uniform whole numbers."""
    return np.exp(rng.uniform(np.log(low), np.log(high + 1), n)).astype(np.int64)


def _requests(measured: Completions) -> pd.DataFrame:
    asked = measured.requests
    return pd.DataFrame({
        "arrived_at": asked.arrived_at, "prompt_tokens": asked.prompt_tokens,
        "output_tokens": asked.output_tokens, "scheduled_at": measured.scheduled_at,
        "first_token_at": measured.first_token_at, "finished_at": measured.finished_at,
        "preempted": measured.preemptions,
    })  # fmt: skip


def _steps(recorded: dict[str, np.ndarray]) -> pd.DataFrame:
    times = {name: recorded[name] for name in ("started_at", "ended_at")}
    counts = {name: recorded[name].astype(np.int32) for name in STEP_COLUMNS}
    return pd.DataFrame(times | counts)


def _with_hardware(spec: VllmRun | StepsRun, found: pd.DataFrame) -> pd.DataFrame:
    live = engine(str(spec.deployment))
    found.attrs["environment"] = live.hardware | {"deployment": live.deployment.as_json()}
    return found


def swapping(spec: VllmRun) -> pd.DataFrame:
    """What keeping preempted KV costs and saves: a row per seed of one way to keep it.

    Without ``keeps`` vLLM computes again what it preempted.
    """
    found = []
    ours = engine(str(spec.deployment), **spec.keeps)
    for seed in spec.workload.seeds:
        requests, server, predicted = open_loop(spec, seed)
        asked = requests, spec.policy, server, predicted
        measured, recorded, more = ours.serve(*asked, seed=seed)
        jct = measured.finished_at - requests.arrived_at
        found.append({
            "x": np.float32(spec.rho), "seed": seed, "run": 0, "jct_mean": jct.mean(),
            "busy_seconds": measured.counters["busy_seconds"],
            "preemptions": int(measured.preemptions.sum()),
            "prefill_tokens": int(recorded["prefill_tokens"].sum()),
            "prompt_tokens": int(requests.prompt_tokens.sum()),
            **{name: float(more.get(f"swap_{name}", 0.0)) for name in SWAP_COLUMNS},
        })  # fmt: skip
    return _with_hardware(spec, pd.DataFrame(found))
