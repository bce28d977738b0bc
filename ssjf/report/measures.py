"""What claims measure on the runs of experiments, with intervals."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from ssjf.analysis import bootstrap
from ssjf.analysis.bootstrap import Estimate
from ssjf.analysis.estimates import COMPARISONS, replicates
from ssjf.analysis.metrics import run_metrics
from ssjf.analysis.predictions import quality_of
from ssjf.errors import InputError
from ssjf.experiments.grid import rows

Load = Callable[[str], pd.DataFrame]


def runs_of(experiment: str, keep: Callable[[Any], bool] | None = None) -> pd.DataFrame:
    """The runs of an experiment (those whose specification ``keep`` keeps), one row each."""
    return per_run(rows(experiment, keep))


def per_run(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows per request as rows per run, with the metrics that the replay is quality_of by."""
    if "jct_mean" in frame:
        return frame
    keys = ("mode", "engine", "rho", "series", "protocol", "run_id", "x", "seed", "run")
    groups = frame.groupby([key for key in keys if key in frame], sort=False)
    return groups.apply(run_metrics, include_groups=False).reset_index()


def measure(options: dict[str, Any], load: Load = runs_of) -> Estimate:
    """A measure as a claim writes it: experiment, series, metric, how, and where."""
    options = dict(options)
    name = options.pop("experiment")
    if "quality" in options or "mean" in options:
        return _of_rows(rows(name), **options)
    frame = load(name)
    return _shrinks(frame, **options) if "shrinks" in options else compared(frame, **options)


def _of_rows(frame: pd.DataFrame, series: str, quality: str = "", mean: str = "") -> Estimate:
    """Of a series' rows: a measure of its predictions, or the mean of a column."""
    part = frame[frame["series"] == series]
    if mean:
        return bootstrap.interval(part[mean])
    found = quality_of(part, metrics=[quality]).set_index("metric").loc[quality]
    return Estimate(*map(float, found[["value", "low", "high"]]))


def compared(
    frame: pd.DataFrame,
    series: str,
    metric: str = "jct_mean",
    how: str = "reduction",
    baseline: str = "fcfs",
    **where: Any,
) -> Estimate:
    """A series against the baseline on the same replicates: ``reduction`` (%) or ``factor``."""
    wide = _replicates(frame, series, metric, baseline, where)
    return COMPARISONS[how](wide[baseline], wide[series])


def _replicates(
    frame: pd.DataFrame, series: str, metric: str, baseline: str, where: dict[str, Any]
) -> pd.DataFrame:
    for key, value in where.items():
        frame = frame[frame[key] == value]
    wide = replicates(frame, metric)
    for name in (series, baseline):
        if name not in wide:
            raise InputError(f"no rows of series {name} with {where}")
    return wide


def _shrinks(frame: pd.DataFrame, shrinks: str, start, end, series: str, **where) -> Estimate:
    """By how many points the reduction falls from one value of a key to another."""
    ends = [
        _replicates(frame, series, "jct_mean", "fcfs", where | {shrinks: value})
        for value in (start, end)
    ]
    values = np.array([[wide["fcfs"], wide[series]] for wide in ends])
    return bootstrap.statistic(_fall_in_points, values)


def _fall_in_points(values: np.ndarray) -> np.ndarray:
    """``values`` (..., 2 ends, 2 policies, replicates)."""
    means = values.mean(axis=-1)
    reduction = 100 * (1 - means[..., 1] / means[..., 0])
    return reduction[..., 0] - reduction[..., 1]
