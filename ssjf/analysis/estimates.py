"""Statistics of series with intervals, resampled by replicate.

A replicate is one (seed, run): it goes through all values of x (rates, scales), and is drawn
as a whole, so that an average over x keeps its mixture of x, and a window of a trace that is
served at ten scales counts once and not ten times. Policies are compared on equal replicates.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ssjf.analysis import bootstrap
from ssjf.analysis.bootstrap import Estimate

REPLICATE = ["seed", "run"]
COMPARISONS: dict[str, Callable[..., Estimate]] = {
    "reduction": bootstrap.reduction,
    "factor": bootstrap.factor,
}


def replicates(frame: pd.DataFrame, metric: str, by: Sequence[str] = ()) -> pd.DataFrame:
    """The metric averaged over x: a row per keys and replicate, a column per series."""
    exact = frame.assign(**{metric: frame[metric].astype(np.float64)})
    return exact.groupby([*by, *REPLICATE, "series"])[metric].mean().unstack("series")


def means(frame: pd.DataFrame, by: list[str], metric: str) -> pd.DataFrame:
    """Columns ``by``, series, value, low, high in the metric's unit."""
    return _each(frame, by, metric, lambda wide, series: bootstrap.interval(wide[series]))


def against(
    frame: pd.DataFrame,
    by: list[str],
    metric: str = "jct_mean",
    how: str = "reduction",
    baseline: str = "fcfs",
) -> pd.DataFrame:
    """Every other series against the baseline: ``reduction`` (%) or ``factor``.

    Columns ``by``, series, value, low, high.
    """
    compare = COMPARISONS[how]
    return _each(frame, by, metric, lambda wide, series: compare(wide[baseline], wide[series]),
                 leave_out=baseline)  # fmt: skip


def changed(before: pd.DataFrame, after: pd.DataFrame, series: str) -> Estimate:
    """By how many points the reduction of FCFS's mean JCT changes, of two frames of replicates."""
    values = np.stack([wide[["fcfs", series]].to_numpy().T for wide in (before, after)])
    return bootstrap.statistic(_change_in_points, values)


def _change_in_points(values: np.ndarray) -> np.ndarray:
    """``values`` (..., before and after, 2 policies, replicates)."""
    mean = values.mean(axis=-1)
    reduction = 100 * (1 - mean[..., 1] / mean[..., 0])
    return reduction[..., 1] - reduction[..., 0]


def captured(frame: pd.DataFrame, by: Sequence[str] = ("slots", "rho")) -> pd.DataFrame:
    """The share (%) of the oracle's reduction of FCFS's mean JCT that every other series has.

    Columns ``by``, series, value, low, high.
    """

    def percent(wide: pd.DataFrame, series: str) -> Estimate:
        share = bootstrap.captured(wide["fcfs"], wide[series], wide["sjf"])
        return Estimate(*(100 * each for each in share))

    return _each(frame, [*by], "jct_mean", percent, leave_out="fcfs")


def spread_over_seeds(frame: pd.DataFrame, by: list[str], baseline: str = "fcfs") -> pd.DataFrame:
    """Standard deviation over seeds (points) of the JCT reduction that one seed gives.

    Columns ``by``, series, spread.
    """
    keys = [*by, "seed", "series"]
    wide = frame.astype({"jct_mean": np.float64}).groupby(keys)["jct_mean"].mean().unstack()
    reductions = 100 * (1 - wide.div(wide[baseline], axis=0)).drop(columns=baseline)
    return reductions.groupby(by).std().stack().rename("spread").reset_index()


def with_interval(estimates: pd.DataFrame, form: str = ".3g") -> list[str]:
    """Each estimate ``in_words``."""
    ends = estimates[["value", "low", "high"]].itertuples(index=False, name=None)
    return [in_words(value, low, high, form) for value, low, high in ends]


def in_words(value: float, low: float, high: float, form: str = ".3g") -> str:
    """``value [low, high]``, the value alone where it has no interval, a dash for none."""
    if np.isnan(value):
        return "–"
    interval = "" if np.isnan(low) else f" [{low:{form}}, {high:{form}}]"
    return f"{value:{form}}{interval}"


def _each(
    frame: pd.DataFrame,
    by: list[str],
    metric: str,
    estimate: Callable[[pd.DataFrame, str], Estimate],
    leave_out: str = "",
) -> pd.DataFrame:
    """``estimate(replicates, series)`` for every series at every value of the keys ``by``."""
    measured = replicates(frame, metric, by)
    rows: list[dict[str, Any]] = []
    for values in frame[by].drop_duplicates().itertuples(index=False, name=None):
        wide = measured.loc[values].dropna(axis=1, how="all")
        keys = dict(zip(by, values, strict=True))
        for series in frame["series"].unique():
            if series in wide and series != leave_out:
                rows.append(keys | {"series": series} | estimate(wide, series)._asdict())
    return pd.DataFrame(rows)
