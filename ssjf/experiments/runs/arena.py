"""The arena: every order on the same traffic, over slots and utilisation.

A run is one order on one kind of traffic. What an order takes from the queue (FCFS's mean wait and
tail) is that of the very traffic it serves; only the tuner has to find it out as it goes.
"""

from typing import Any

import pandas as pd

from ssjf.analysis import metrics
from ssjf.experiments.runs.steady import open_loop, order_name, typed
from ssjf.experiments.specs import ArenaRun
from ssjf.experiments.workloads import Arrivals
from ssjf.request import Completions, FloatArray, Requests
from ssjf.scheduler import policy
from ssjf.simulator.contract import Contract, Tuner, tuned
from ssjf.simulator.profile import profile
from ssjf.simulator.server import Server
from ssjf.simulator.simulate import simulate

ARRIVALS = {
    "poisson": Arrivals(),
    "bursts": Arrivals(cv=3.0),
    "azure": Arrivals(trace="azure-conv-2023", window=19_000),
    "overload": Arrivals(rates=[(0.4, 1.0), (0.1, 1.4), (0.5, 1.0)]),
}
"""Gaps between arrivals. *bursts*: Gamma, coefficient of variation 3. *azure*: those of the trace,
over and over. *overload*: a tenth of the requests come at 1.4 times the rate."""


def rows(spec: ArenaRun) -> pd.DataFrame:
    """A row per slots, load (x) and seed: the metrics that ``columns`` names."""
    parts = []
    for slots in spec.batch_slots:
        for rho in spec.loads:
            for seed in spec.workload.seeds:
                at = {"x": rho, "seed": seed, "run": 0, "slots": slots}
                parts.append(at | _repetition(spec, slots, rho, seed))
    return typed(parts)


def _repetition(spec: ArenaRun, slots: int, rho: float, seed: int) -> dict[str, Any]:
    workload = spec.workload.model_copy(update={"arrivals": ARRIVALS[spec.arrivals]})
    predictor = spec.predictor or spec.workload.predictor
    here = spec.model_copy(
        update={"slots": slots, "rho": rho, "workload": workload, "predictor": predictor}
    )
    requests, server, predicted = open_loop(here, seed)
    done = _served(spec, requests, server, predicted)
    alone = profile(spec.profile).alone_seconds(requests.prompt_tokens, requests.output_tokens)
    values = metrics.summarise(done, alone, spec.warmup_fraction)
    return {name: values[name] for name in spec.columns or values}


def _served(
    spec: ArenaRun, requests: Requests, server: Server, predicted: FloatArray
) -> Completions:
    model = profile(spec.profile)
    if spec.contract is not None:
        contract = Contract.of(spec.contract)
        tuner = Tuner(requests, predicted, model, server, contract, spec.moves)
        return simulate(requests, tuned(), model, server, predicted, tune=tuner)
    order = policy(order_name(spec, requests, model, server))
    return simulate(requests, order, model, server, predicted)
