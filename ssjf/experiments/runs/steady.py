"""The steady-state protocol: long runs of the iteration-level simulator, or of what serves as it
does."""

from collections.abc import Callable
from typing import Any

import pandas as pd

from ssjf.analysis import metrics
from ssjf.experiments import run_rows
from ssjf.experiments.open_loop import open_loop
from ssjf.experiments.specs import SteadyRun
from ssjf.request import Completions, Requests
from ssjf.scheduler import policy
from ssjf.simulator.profile import profile
from ssjf.simulator.server import Server
from ssjf.simulator.simulate import simulate

Serve = Callable[[SteadyRun, Requests, Server, Any, int], Completions]


def simulated(
    spec: SteadyRun, requests: Requests, server: Server, predicted, seed: int
) -> Completions:
    """A run by the simulator."""
    seconds = spec.predictor_seconds
    model = profile(spec.profile)
    return simulate(requests, policy(spec.policy), model, server, predicted, seconds)


def rows(spec: SteadyRun, serve: Serve = simulated) -> pd.DataFrame:
    """The rows of an open-loop run, a repetition per seed, served by ``serve``."""
    return run_rows.table(spec, [_repetition(spec, seed, serve)
                                 for seed in spec.workload.seeds])  # fmt: skip


def _repetition(spec: SteadyRun, seed: int, serve: Serve) -> Any:
    requests, server, predicted = open_loop(spec, seed)
    measured = serve(spec, requests, server, predicted, seed)
    alone = profile(spec.profile).alone_seconds(requests.prompt_tokens, requests.output_tokens)
    row = run_rows.row(spec, spec.rho, seed, 0, measured, alone)
    if spec.slowdown_quantiles:
        grid, values = metrics.slowdown_quantiles(measured, alone, spec.warmup_fraction)
        row |= {f"slowdown_q{p:.6f}": v for p, v in zip(grid, values, strict=True)}
    return row
