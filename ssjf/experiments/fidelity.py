"""Fits a step-time profile to vLLM's steps, and compares runs on vLLM with simulated ones."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ssjf.analysis import bootstrap
from ssjf.analysis.estimates import against
from ssjf.analysis.metrics import run_metrics
from ssjf.errors import InputError
from ssjf.experiments import grid, runner, store
from ssjf.experiments.grid import experiment
from ssjf.experiments.runs.steady import open_loop, order_name
from ssjf.experiments.specs import SteadyRun
from ssjf.files import whole_file
from ssjf.harness.deployment import deployment
from ssjf.scheduler import policy
from ssjf.simulator.profile import COEFFICIENTS, fit, profile
from ssjf.simulator.simulate import simulate

CALIBRATION = "vllm-calibration"
KEYS = ("experiment", "engine", "slots", "rho", "workload", "series", "seed", "run", "run_id")
METRICS = ("jct_mean", "jct_p99", "ttft_mean", "tpot_mean", "completed_per_second")
REDUCTIONS = {"jct_mean": "mean JCT", "jct_p99": "p99 JCT"}


def calibrate(name: str, out: Path | None = None) -> str:
    """Record steps of a deployment (one raw run), write its profile, and describe its errors."""
    known = deployment(name).name
    out = out or Path(f"{known}.toml")
    if out.suffix != ".toml":
        raise InputError(f"{out} must end in .toml: profiles are found by that")
    runner.run(CALIBRATION, deployment=name)
    recorded = grid.rows(CALIBRATION, deployment=name)
    (run_id,) = recorded["run_id"].unique()
    steps = {key: column.to_numpy() for key, column in recorded.select_dtypes("number").items()}
    source = f"fitted to {CALIBRATION}/{run_id} (env.json there says where)"
    fitted = fit(known, steps, source, deployment(name).precision)
    with whole_file(out) as temporary:
        temporary.write_text(fitted.to_toml())
    return (
        f"{out}: {fitted.profile.step_seconds * 1e3:.3g} ms a step; {fitted.steps} steps, "
        f"median error of one {100 * fitted.relative_error:.1f} %, "
        f"of all {100 * fitted.total_error:+.1f} %"
    )


def runs(*names: str, deployment: str | None = None) -> pd.DataFrame:
    """Read measured experiments: a row per run, seed and engine with keys and ``METRICS`` (s).

    Settings shared by all runs of an experiment are columns too.
    """
    parts = [_runs(name, deployment) for name in names]
    return pd.concat(parts, ignore_index=True)


def _runs(name: str, deployment: str | None) -> pd.DataFrame:
    rows = grid.rows(name, deployment=deployment).assign(experiment=name)
    common = experiment(name).common
    same = {"workload": "Poisson"} | {key: common[key] for key in ("slots", "rho") if key in common}
    for key, value in same.items():
        rows[key] = value if key not in rows else rows[key].fillna(value)
    keys = [key for key in KEYS if key in rows]
    if "jct_mean" in rows:
        return rows[[*keys, *METRICS]]
    by_run = rows.groupby(keys, sort=False)[list(rows.columns.difference(keys))]
    return by_run.apply(_summary).reset_index()


def _summary(rows: pd.DataFrame) -> pd.Series:
    several = rows[rows["output_tokens"] > 1]
    decoding = several["finished_at"] - several["first_token_at"]
    more = {
        "ttft_mean": (rows["first_token_at"] - rows["arrived_at"]).mean(),
        "tpot_mean": float((decoding / (several["output_tokens"] - 1)).mean()),
    }
    return pd.concat([run_metrics(rows), pd.Series(more)])[list(METRICS)]


def gains(runs: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Reduction (%) of FCFS's mean and p99 JCT by engine and ``by``; 95 % intervals over seeds.

    Columns ``by``, engine, metric, series, value, low, high.
    """
    parts = [against(runs, [*by, "engine"], metric).assign(metric=metric) for metric in REDUCTIONS]
    return pd.concat(parts, ignore_index=True)


def pairs(runs: pd.DataFrame) -> pd.DataFrame:
    """Pair each measured run with its simulated twin, a row per metric of ``REDUCTIONS``.

    Columns: ``KEYS`` without engine and run_id, metric, measured and simulated (s), and error
    (simulated / measured - 1).
    """
    keys = [key for key in KEYS if key in runs and key not in ("engine", "run_id")]
    long = runs.melt([*keys, "engine"], list(REDUCTIONS), "metric")
    wide = long.pivot_table("value", [*keys, "metric"], "engine", sort=False).reset_index()
    if not {"vllm", "simulator"} <= set(wide):
        raise InputError("there is no run of both engines: run them with `ssjf run measurements`")
    wide = wide.rename(columns={"vllm": "measured", "simulator": "simulated"})
    return wide.assign(error=wide["simulated"] / wide["measured"] - 1)


def at_equal_speed(runs: pd.DataFrame) -> pd.DataFrame:
    """As ``pairs``, but with each run simulated again at the speed that the machine had then.

    Speed is one factor per run (column ``speed``): measured over simulated mean TPOT, by which all
    times of the profile are multiplied. The remaining error is not due to the machine's speed. Not
    for runs with preemption, where TPOT includes waiting.
    """
    specs = [spec for name in runs["experiment"].unique() for spec in experiment(name).specs()]
    steady = [spec for spec in specs if isinstance(spec, SteadyRun)]
    by_id = {store.digest(spec): spec for spec in steady}
    twins = {_twin(spec): spec for spec in steady if spec.engine == "simulator"}
    parts = []
    for row in runs[runs["engine"] == "vllm"].itertuples():
        spec = twins[_twin(by_id[row.run_id])]
        twin = runs[(runs["run_id"] == store.digest(spec)) & (runs["seed"] == row.seed)]
        speed = row.tpot_mean / twin["tpot_mean"].item()
        shared = {key: getattr(row, key) for key in KEYS if hasattr(row, key)}
        for metric, value in _simulated(spec, int(row.seed), speed).items():
            parts.append(shared | {"metric": metric, "measured": getattr(row, metric),
                                   "simulated": value, "speed": speed})  # fmt: skip
    table = pd.DataFrame(parts).drop(columns=["engine", "run_id"])
    return table.assign(error=table["simulated"] / table["measured"] - 1)


def _twin(spec: SteadyRun) -> str:
    return store.digest(spec.as_json() | {"engine": ""})


def _simulated(spec: SteadyRun, seed: int, speed: float) -> dict[str, float]:
    """Simulate one seed of a run with all step times multiplied by ``speed``."""
    given = profile(spec.profile)
    model = replace(given, **{name: getattr(given, name) * speed for name in COEFFICIENTS})
    requests, server, predicted = open_loop(spec, seed)
    order = policy(order_name(spec, requests, given, server, predicted))
    done = simulate(requests, order, model, server, predicted, spec.predictor_seconds)
    jct = done.finished_at - requests.arrived_at
    return {"jct_mean": float(jct.mean()), "jct_p99": float(np.quantile(jct, 0.99))}


def errors(paired: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Error of the simulator (%): its mean, with an interval, and that of single runs.

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


def conditions(runs: pd.DataFrame) -> pd.Series:
    """Describe the conditions of each run as text."""
    words = runs["slots"].map("{:.0f} slots".format)
    words = words.where(runs["workload"] == "Poisson", runs["workload"])
    words = words.where(runs["experiment"] != "vllm-predictors", words + ", predictors")
    return words.where(runs["experiment"] != "vllm-kv", words + ", short KV memory")


def devices(names: Sequence[str]) -> pd.DataFrame:
    """List what was measured on each deployment, and the command that measures the rest."""
    return pd.DataFrame([_device(name) for name in names])


def _device(name: str) -> dict[str, str]:
    of = "vllm-gpu" if name.startswith("gpu-") else "vllm-gain"
    command = f"ssjf calibrate {name} && ssjf run {of} --profile {name}"
    of_name = deployment(name)
    row = {"deployment": name, "model": str(of_name.shape or of_name.model), "command": command}
    specs = experiment(of).specs(deployment=name)
    if not all(store.is_finished(spec) for spec in specs):
        return row | {"measured": "not attempted: no run is committed", "hardware": ""}
    folders = [store.run_folder(spec) for spec in specs if spec.engine != "simulator"]
    envs = [json.loads((folder / "env.json").read_text()) for folder in folders]
    hardware = {
        f"{env['accelerator'] or env['processor']}, vLLM {env['vllm']}, torch {env['torch']}"
        for env in envs
    }
    return row | {"measured": f"{of}: yes", "hardware": "; ".join(sorted(hardware))}
