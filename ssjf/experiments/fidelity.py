"""Runs measured on vLLM beside the same runs simulated: metrics, and how far they are apart."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ssjf.analysis import bootstrap
from ssjf.analysis.estimates import against
from ssjf.analysis.metrics import run_metrics
from ssjf.errors import InputError
from ssjf.experiments import grid, store
from ssjf.experiments.grid import experiment
from ssjf.experiments.open_loop import open_loop
from ssjf.experiments.specs import Run, SteadyRun
from ssjf.harness.deployment import deployment
from ssjf.scheduler import policy
from ssjf.simulator.profile import COEFFICIENTS, profile
from ssjf.simulator.simulate import simulate

KEYS = ("experiment", "engine", "slots", "rho", "workload", "series", "seed", "run", "run_id")
METRICS = ("jct_mean", "jct_p99", "ttft_mean", "tpot_mean", "completed_per_second")
REDUCTIONS = {"jct_mean": "mean JCT", "jct_p99": "p99 JCT"}


def runs(*names: str, deployment: str | None = None) -> pd.DataFrame:
    """A row per run and seed of measured experiments, both engines: keys and ``METRICS``.

    Times in s. What an experiment keeps the same for all its runs is a column too.
    """
    parts = [_runs(name, deployment) for name in names]
    return pd.concat(parts, ignore_index=True)


def _runs(name: str, deployment: str | None) -> pd.DataFrame:
    rows = grid.rows(name, deployment=deployment).assign(experiment=name)
    for key, value in _fixed(name).items():
        rows[key] = value if key not in rows else rows[key].fillna(value)
    keys = [key for key in KEYS if key in rows]
    if "jct_mean" in rows:
        return rows[[*keys, *METRICS]]
    found = rows.groupby(keys, sort=False)[list(rows.columns.difference(keys))].apply(_summary)
    return found.reset_index()


def _fixed(name: str) -> dict[str, object]:
    common = experiment(name).common
    return {"workload": "Poisson"} | {key: common[key] for key in ("slots", "rho") if key in common}


def _summary(rows: pd.DataFrame) -> pd.Series:
    more = {
        "ttft_mean": (rows["first_token_at"] - rows["arrived_at"]).mean(),
        "tpot_mean": _time_per_token(rows),
    }
    return pd.concat([run_metrics(rows), pd.Series(more)])[list(METRICS)]


def _time_per_token(rows: pd.DataFrame) -> float:
    several = rows[rows["output_tokens"] > 1]
    decoding = several["finished_at"] - several["first_token_at"]
    return float((decoding / (several["output_tokens"] - 1)).mean())


def gains(found: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Reduction (%) of FCFS's mean and p99 JCT by engine and ``by``; 95 % intervals over seeds.

    Columns ``by``, engine, metric, series, value, low, high.
    """
    parts = [against(found, [*by, "engine"], metric).assign(metric=metric) for metric in REDUCTIONS]
    return pd.concat(parts, ignore_index=True)


def pairs(found: pd.DataFrame) -> pd.DataFrame:
    """Each measured run beside its simulated twin, a row per metric of ``REDUCTIONS``.

    Columns of ``KEYS`` but engine and run_id, metric, measured, simulated (s), error: simulated
    over measured less 1.
    """
    keys = [key for key in KEYS if key in found and key not in ("engine", "run_id")]
    long = found.melt([*keys, "engine"], list(REDUCTIONS), "metric")
    wide = long.pivot_table("value", [*keys, "metric"], "engine", sort=False).reset_index()
    if not {"vllm", "simulator"} <= set(wide):
        raise InputError("there is no run of both engines: run them with `ssjf run measurements`")
    wide = wide.rename(columns={"vllm": "measured", "simulator": "simulated"})
    return wide.assign(error=wide["simulated"] / wide["measured"] - 1)


def at_equal_speed(found: pd.DataFrame) -> pd.DataFrame:
    """``pairs``, the measured runs simulated anew at the speed that the machine had in each.

    Speed is one factor a run: measured over simulated mean time per output token, by which all of
    the profile's times are multiplied (column ``speed``). What remains is not the machine's. Not
    for runs that preempt: there the time between tokens is waiting, too.
    """
    twins = {_twin(spec): spec for name in found["experiment"].unique()
             for spec in experiment(name).specs() if isinstance(spec, SteadyRun)
             and spec.engine == "simulator"}  # fmt: skip
    parts = []
    for row in found[found["engine"] == "vllm"].itertuples():
        spec = twins[_twin(_spec_of(row.experiment, row.run_id))]
        slow = found[(found["run_id"] == store.digest(spec)) & (found["seed"] == row.seed)]
        speed = row.tpot_mean / slow["tpot_mean"].item()
        done = _simulated(spec, int(row.seed), speed)
        shared = {key: getattr(row, key) for key in KEYS if hasattr(row, key)}
        for metric, value in done.items():
            parts.append(shared | {"metric": metric, "measured": getattr(row, metric),
                                   "simulated": value, "speed": speed})  # fmt: skip
    table = pd.DataFrame(parts).drop(columns=["engine", "run_id"])
    return table.assign(error=table["simulated"] / table["measured"] - 1)


def _twin(spec: Run) -> str:
    return store.digest(spec.as_json() | {"engine": ""})


def _spec_of(name: str, run_id: str) -> Run:
    return next(spec for spec in experiment(name).specs() if store.digest(spec) == run_id)


def _simulated(spec: SteadyRun, seed: int, speed: float) -> dict[str, float]:
    """Metrics of ``REDUCTIONS`` of one seed of a run, every step so many times as long."""
    model = profile(spec.profile)
    times = {name: getattr(model, name) * speed for name in COEFFICIENTS}
    requests, server, predicted = open_loop(spec, seed)
    charged = spec.predictor_seconds
    done = simulate(requests, policy(spec.policy), replace(model, **times), server, predicted,
                    charged)  # fmt: skip
    jct = done.finished_at - requests.arrived_at
    return {"jct_mean": float(jct.mean()), "jct_p99": float(np.quantile(jct, 0.99))}


def errors(paired: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Error of the simulator in percent: mean, of which the interval is, and of single runs.

    Columns ``by``, metric, runs, mean (%), low, high (bootstrap over runs), median of the
    absolute error of one run (%), largest (%).
    """
    rows = []
    for keys, part in paired.groupby([*by, "metric"], sort=False):
        one = 100 * part["error"].to_numpy()
        bias = bootstrap.interval(one)
        rows.append(dict(zip([*by, "metric"], keys, strict=True)) | {
            "runs": len(part), "error of the mean run (%)": bias.value, "low (%)": bias.low,
            "high (%)": bias.high, "median |error| of a run (%)": float(np.median(np.abs(one))),
            "largest |error| (%)": float(np.abs(one).max()),
        })  # fmt: skip
    return pd.DataFrame(rows)


def conditions(found: pd.DataFrame) -> pd.Series:
    """What sets a run apart, in words."""
    words = found["slots"].map("{:.0f} slots".format)
    words = words.where(found["workload"] == "Poisson", found["workload"])
    words = words.where(found["experiment"] != "vllm-predictors", words + ", predictors")
    return words.where(found["experiment"] != "vllm-kv", words + ", short KV memory")


def devices(names: Sequence[str]) -> pd.DataFrame:
    """What was measured on each deployment, and with which command what was not."""
    return pd.DataFrame([_device(name) for name in names])


def _device(name: str) -> dict[str, str]:
    of = "vllm-gpu" if name.startswith("gpu-") else "vllm-gain"
    command = f"ssjf calibrate {name} && ssjf run {of} --profile {name}"
    row = {"deployment": name, "model": deployment(name).shape, "command": command}
    if not exist(of, name):
        return row | {"measured": "not attempted: no run is committed", "hardware": ""}
    return row | {"measured": f"{of}: yes", "hardware": hardware(of, name)}


def exist(name: str, deployment: str) -> bool:
    """Have all runs of an experiment been made on a deployment?"""
    specs = experiment(name).specs(deployment=deployment)
    return all(store.is_finished(spec) for spec in specs)


def hardware(name: str, deployment: str) -> str:
    """What the measured runs of an experiment ran on, as their ``env.json`` has it."""
    folders = [
        store.run_folder(spec)
        for spec in experiment(name).specs(deployment=deployment)
        if spec.engine != "simulator"
    ]
    found = [json.loads((folder / "env.json").read_text()) for folder in folders]
    return "; ".join(sorted({
        f"{each['accelerator'] or each['processor']}, vLLM {each['vllm']}, torch {each['torch']}"
        for each in found
    }))  # fmt: skip
