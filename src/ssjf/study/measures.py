"""What claims, tables and figures measure on the rows of experiments, with intervals."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from ssjf.errors import InputError
from ssjf.study import bootstrap
from ssjf.study.bootstrap import Estimate
from ssjf.study.experiments import rows

KEYS = ["x", "seed", "run"]

Load = Callable[[str], pd.DataFrame]


def per_run(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows per request as rows per run, with the metrics that the replay is judged by."""
    if "jct_mean" in frame:
        return frame
    labels = [c for c in ("mode", "series", "protocol", "run_id", *KEYS) if c in frame]
    jct = frame["finished_at"] - frame["arrived_at"]
    groups = frame.assign(jct=jct).groupby(labels, sort=False)
    return groups.apply(_run_metrics, include_groups=False).reset_index()


def _run_metrics(run: pd.DataFrame) -> pd.Series:
    jct = run["jct"].dropna().to_numpy()
    finished = np.sort(run["finished_at"].dropna().to_numpy())
    quarter = int(np.percentile(np.arange(len(finished)), 25))
    span = finished[-1] - run["arrived_at"].min()
    return pd.Series(
        {
            "jct_mean": jct.mean(),
            "jct_p99": np.percentile(jct, 99),
            "throughput_25": quarter / finished[quarter],
            "completed_per_second": len(finished) / span,
        }
    )


def paired(frame: pd.DataFrame, series: str, metric: str, **where: Any) -> np.ndarray:
    """The metric of one series, shape (runs,), in the fixed order of its repetitions."""
    chosen = frame[frame["series"] == series]
    for key, value in where.items():
        chosen = chosen[chosen[key] == value]
    if chosen.empty:
        raise InputError(f"no rows of series {series} with {where}")
    return chosen.sort_values(KEYS)[metric].to_numpy(np.float64)


def compared(
    frame: pd.DataFrame,
    series: str,
    metric: str = "jct_mean",
    how: str = "reduction",
    baseline: str = "fcfs",
    **where: Any,
) -> Estimate:
    """A series against the baseline on the same runs: ``reduction`` (%) or ``factor``."""
    compare = {"reduction": bootstrap.reduction, "factor": bootstrap.factor}[how]
    return compare(paired(frame, baseline, metric, **where), paired(frame, series, metric, **where))


def comparison_table(
    frame: pd.DataFrame,
    by: list[str],
    metric: str = "jct_mean",
    how: str = "reduction",
    baseline: str = "fcfs",
) -> pd.DataFrame:
    """``compared`` for every other series at every value of the keys ``by``: a tidy frame."""
    found = []
    for values, part in frame.groupby(by, sort=False):
        for series in part["series"].unique():
            if series != baseline:
                estimate = compared(part, series, metric, how, baseline)
                found.append(dict(zip(by, values, strict=True)) | _columns(series, estimate))
    return pd.DataFrame(found)


def mean_table(frame: pd.DataFrame, by: list[str], metric: str) -> pd.DataFrame:
    """Mean of a metric with its interval for every series at every value of the keys."""
    found = []
    for values, part in frame.groupby([*by, "series"], sort=False):
        estimate = bootstrap.interval(part[metric].to_numpy(np.float64))
        keys = dict(zip([*by, "series"], values, strict=True))
        found.append(keys | _columns(keys["series"], estimate))
    return pd.DataFrame(found)


def _columns(series: str, estimate: Estimate) -> dict[str, Any]:
    return {
        "series": series, "value": estimate.value, "low": estimate.low, "high": estimate.high,
    }  # fmt: skip


def runs_of(experiment: str) -> pd.DataFrame:
    """All runs of an experiment, one row each."""
    return per_run(rows(experiment))


def measure(options: dict[str, Any], load: Load = runs_of) -> Estimate:
    """A measure as a claim writes it: experiment, series, metric, how, and where."""
    options = dict(options)
    frame = load(options.pop("experiment"))
    if "shrinks" in options:
        return _shrinks(frame, **options)
    return compared(frame, **options)


def _shrinks(frame: pd.DataFrame, shrinks: str, start, end, series: str, **where) -> Estimate:
    """By how many points the reduction falls from one value of a key to another."""
    ends = [frame[frame[shrinks] == value] for value in (start, end)]
    metrics = [[paired(f, s, "jct_mean", **where) for s in ("fcfs", series)] for f in ends]
    values = np.array(metrics)  # (2 ends, 2 policies, runs)
    return bootstrap.statistic(_fall_in_points, values)


def _fall_in_points(values: np.ndarray) -> np.ndarray:
    """``values`` (..., 2 ends, 2 policies, runs)."""
    means = values.mean(axis=-1)
    reduction = 100 * (1 - means[..., 1] / means[..., 0])
    return reduction[..., 0] - reduction[..., 1]
