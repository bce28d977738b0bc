"""Simulated clusters: routers and policies inside the replicas, on the same traffic."""

from typing import Any

import numpy as np
import pandas as pd

from ssjf.analysis import metrics
from ssjf.experiments import grid, store
from ssjf.experiments.runs.steady import open_loop, typed
from ssjf.experiments.specs import ClusterRun
from ssjf.request import FloatArray, Requests
from ssjf.scheduler import policy
from ssjf.scheduler.routers import router
from ssjf.simulator.cluster import Replica, simulate_cluster
from ssjf.simulator.profile import profile
from ssjf.simulator.server import Server


def rows(spec: ClusterRun) -> pd.DataFrame:
    """Make a row per router (its index in ``routers``), replicas, load (x) and seed, with the
    metrics in ``columns``."""
    parts = []
    for replicas in spec.replicas:
        for rho in spec.loads:
            for seed in spec.workload.seeds:
                requests, server, predicted = _traffic(spec, replicas, rho, seed)
                for place, name in enumerate(spec.routers):
                    at = {"x": rho, "seed": seed, "run": 0, "replicas": replicas, "router": place}
                    values = _served(spec, name, replicas, requests, server, predicted, seed)
                    parts.append(at | values)
    return typed(parts)


def stored(name: str) -> pd.DataFrame:
    """Read a stored experiment, with ``slots`` and routers by name."""
    table = grid.rows(name)
    specs = [each for each in grid.experiment(name).specs() if isinstance(each, ClusterRun)]
    known = {store.digest(each): each for each in specs}
    named = zip(table["run_id"], table["router"].astype(int), strict=True)
    slots = [known[run].slots for run in table["run_id"]]
    return table.assign(router=[known[run].routers[i] for run, i in named], slots=slots)


def _traffic(
    spec: ClusterRun, replicas: int, rho: float, seed: int
) -> tuple[Requests, Server, Any]:
    """The traffic of one server, ``replicas`` times as fast."""
    predictor = spec.predictor or spec.workload.predictor
    here = spec.model_copy(update={"rho": rho, "predictor": predictor})
    requests, server, predicted = open_loop(here, seed)
    return requests.arriving(requests.arrived_at / replicas), server, predicted


def _served(
    spec: ClusterRun, name: str, replicas: int, requests: Requests, server: Server,
    predicted: FloatArray, seed: int,
) -> dict[str, float]:  # fmt: skip
    model = profile(spec.profile)
    chosen = router(f"two-pool:{_middle(predicted)!r}" if name == "two-pool" else name)
    done = simulate_cluster(requests, policy(spec.policy), [Replica(model, server)] * replicas,
                            chosen, predicted, seed=seed)  # fmt: skip
    alone = model.alone_seconds(requests.prompt_tokens, requests.output_tokens)
    values = metrics.summarise(done, alone, spec.warmup_fraction)
    values["preemptions"] = done.counters["preemptions"]
    return {column: values[column] for column in spec.columns or values}


def _middle(predicted: FloatArray) -> float:
    """The length below which requests make up half of the predicted tokens."""
    ordered = np.sort(predicted)
    return float(ordered[np.searchsorted(ordered.cumsum(), ordered.sum() / 2)])
