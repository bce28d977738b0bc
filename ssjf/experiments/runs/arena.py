"""The arena: every policy on the same traffic, over slots and utilisation.

A run is one policy on one kind of traffic. Parameters that depend on FCFS's mean wait and tail are
computed from the traffic that the run serves; only the tuner has to estimate them as it goes.
"""

import hashlib
import sys
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ssjf.analysis import metrics, theory
from ssjf.errors import unknown
from ssjf.experiments import paths, store
from ssjf.experiments.grid import experiment
from ssjf.experiments.grid import rows as stored
from ssjf.experiments.runs.steady import open_loop, order_name, typed
from ssjf.experiments.specs import ArenaRun
from ssjf.experiments.workloads import Arrivals
from ssjf.request import Completions, FloatArray, IntArray, Requests
from ssjf.scheduler import policy
from ssjf.simulator.contract import EVERY, MEMORY, Contract, Shadow, Tuner, tuned
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
repeated. *overload*: a tenth of the requests arrive at 1.4 times the rate."""
EXPERIMENTS = ("arena", "arena-drift")


def entries(
    policies: list[str], workload: str = "", arrivals: str = "", seeds: int | None = None
) -> list[ArenaRun]:
    """Make a run of each policy on every kind of traffic of the arena, or only on the given
    ``workload`` (a part of its label) and ``arrivals``."""
    everything = [each for name in EXPERIMENTS for each in experiment(name).specs(seeds)]
    traffic = [each for each in everything if isinstance(each, ArenaRun) and each.series == "fcfs"]
    for what, given, known in (
        ("workload", workload, {str(each.workload.label) for each in traffic}),
        ("arrivals", arrivals, {*ARRIVALS}),
    ):
        if not any(given.lower() in each.lower() for each in known):
            raise unknown(what, given, known)
    for each in policies:
        policy(each)
    kept = [each for each in traffic if _is_of(each, workload, arrivals)]
    return [each.model_copy(update={"series": f"{name} (entered)", "policy": name})
            for name in policies for each in kept]  # fmt: skip


def _is_of(spec: ArenaRun, workload: str, arrivals: str) -> bool:
    return (
        workload.lower() in str(spec.workload.label).lower() and arrivals.lower() in spec.arrivals
    )


def entered(spec: ArenaRun) -> pd.DataFrame:
    """Return an entry's rows with the names of its traffic as columns; they are cached in
    ``results/scratch/arena`` until the entry or the file of its policy changes."""
    policy(spec.policy)  # imports its module
    source = getattr(sys.modules.get(spec.policy.partition(":")[0]), "__file__", None)
    code = Path(source).read_bytes() if source else b""
    name = hashlib.sha256(store.canonical(spec).encode() + code).hexdigest()[:16]
    file = paths.results() / "scratch" / "arena" / f"{name}.parquet"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        traffic = {"series": spec.series, "arrivals": spec.arrivals}
        table = rows(spec).assign(**traffic, workload=str(spec.workload.label))
        store.write_parquet(table, file)
    return pd.read_parquet(file)


def standing(workload: str = "", arrivals: str = "", seeds: int | None = None) -> pd.DataFrame:
    """Return the stored rows of all policies on the traffic of ``entries``."""
    parts = []
    for name in dict.fromkeys(each.experiment for each in entries(["fcfs"], workload, arrivals)):
        table = stored(name, lambda spec: _is_of(spec, workload, arrivals))
        first = sorted(table["seed"].unique())[:seeds]
        parts.append(table[table["seed"].isin(first)])
    return pd.concat(parts, ignore_index=True)


def rows(spec: ArenaRun) -> pd.DataFrame:
    """Make a row per slots, load (x) and seed, with the metrics in ``columns``."""
    parts = []
    for slots in spec.batch_slots:
        for rho in spec.loads:
            for seed in spec.workload.seeds:
                at = {"x": rho, "seed": seed, "run": 0, "slots": slots}
                parts.append(at | _repetition(spec, slots, rho, seed))
    return typed(parts)


def course(spec: ArenaRun, slots: int, rho: float, every: int, seed: int = 0) -> pd.DataFrame:
    """Follow what a run's tuner chooses; it is asked after every ``every`` finished requests.

    A row per ``every`` requests: hours (arrival of the first), per_second (arrivals),
    headstart_seconds (in force at the first), and the mean and p99 JCT under ``fcfs``, ``ssjf`` and
    ``tuned``, in seconds.
    """
    requests, server, predicted = _traffic(spec, slots, rho, seed)
    model, asked = profile(spec.profile), [(0.0, 0.0)]
    tuner = _tuner(spec, requests, server, predicted, every)

    def tune(finished: IntArray, now: float) -> tuple[float, ...]:
        parameters = tuner(finished, now)
        asked.append((now, parameters[0]))
        return parameters

    served = {"fcfs": simulate(requests, policy("fcfs"), model, server),
              "ssjf": simulate(requests, policy("ssjf"), model, server, predicted),
              "tuned": simulate(requests, tuned(), model, server, predicted,
                                tune=tune, tune_every=every)}  # fmt: skip
    at, seconds = np.array(asked).T
    firsts = np.arange(0, len(requests) - every + 1, every)
    arrived = requests.arrived_at[firsts]
    spans = requests.arrived_at[firsts + every - 1] - arrived
    table = {"hours": arrived / 3600, "per_second": every / spans,
             "headstart_seconds": seconds[np.searchsorted(at, arrived, "right") - 1]}  # fmt: skip
    for name, done in served.items():
        jct = (done.finished_at - requests.arrived_at)[: firsts[-1] + every].reshape(-1, every)
        table |= {f"{name}_mean": jct.mean(1), f"{name}_p99": np.quantile(jct, 0.99, 1)}
    return pd.DataFrame(table)


def by_theory() -> pd.DataFrame:
    """Compute by queueing theory what the cells with one slot and Poisson arrivals should give.

    A row per workload, x (load) and series (fcfs, ssjf, sjf), from the lengths and predictions of
    the first seed: jct_mean and, for fcfs only, jct_p99.9, gamma_seconds (1/γ) and wait_seconds
    (mean wait of requests that wait), all in seconds.
    """
    parts = []
    for spec in experiment("arena").specs():
        if isinstance(spec, ArenaRun) and (spec.series, spec.arrivals) == ("fcfs", "poisson"):
            for rho in spec.loads:
                requests, _, predicted = _traffic(spec, 1, rho, spec.workload.seeds[0])
                model = profile(spec.profile)
                alone = model.alone_seconds(requests.prompt_tokens, requests.output_tokens)
                at = {"workload": str(spec.workload.label), "x": rho}
                parts += [at | each for each in _theory(rho / alone.mean(), alone, predicted)]
    return pd.DataFrame(parts)


def _theory(rate: float, alone: FloatArray, predicted: FloatArray) -> list[dict[str, Any]]:
    gamma, scale = theory.fcfs_tail(rate, alone)
    keys = {"fcfs": np.zeros(len(alone)), "ssjf": predicted, "sjf": alone}
    waits = {name: theory.priority_waits(rate, alone, key).mean() for name, key in keys.items()}
    rows = [{"series": name, "jct_mean": alone.mean() + wait} for name, wait in waits.items()]
    rows[0] |= {"jct_p99.9": np.log(scale / 0.001) / gamma, "gamma_seconds": 1 / gamma,
                "wait_seconds": waits["fcfs"] / (rate * alone.mean())}  # fmt: skip
    return rows


def _repetition(spec: ArenaRun, slots: int, rho: float, seed: int) -> dict[str, Any]:
    requests, server, predicted = _traffic(spec, slots, rho, seed)
    done = _served(spec, requests, server, predicted)
    alone = profile(spec.profile).alone_seconds(requests.prompt_tokens, requests.output_tokens)
    values = metrics.summarise(done, alone, spec.warmup_fraction)
    return {name: values[name] for name in spec.columns or values}


def _traffic(spec: ArenaRun, slots: int, rho: float, seed: int) -> tuple[Requests, Server, Any]:
    workload = spec.workload.model_copy(update={"arrivals": ARRIVALS[spec.arrivals]})
    predictor = spec.predictor or spec.workload.predictor
    here = spec.model_copy(
        update={"slots": slots, "rho": rho, "workload": workload, "predictor": predictor}
    )
    return open_loop(here, seed)


def _tuner(
    spec: ArenaRun, requests: Requests, server: Server, predicted: FloatArray, every: int = EVERY
) -> Tuner:
    contract, seen = Contract.of(str(spec.contract)), deque[Shadow](maxlen=MEMORY // every)
    model = profile(spec.profile)
    return Tuner(requests, predicted, model, server, contract, shadows=seen)


def _served(
    spec: ArenaRun, requests: Requests, server: Server, predicted: FloatArray
) -> Completions:
    model = profile(spec.profile)
    if spec.contract is not None:
        tuner = _tuner(spec, requests, server, predicted)
        return simulate(requests, tuned(), model, server, predicted, tune=tuner)
    order = policy(order_name(spec, requests, model, server, predicted))
    return simulate(requests, order, model, server, predicted)
