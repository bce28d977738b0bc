"""The price in the tail, steady state.

Rows per run: x, seed, run, slots, rho, series, jct_* in s, slowdown_* (JCT over the time of
the request alone), queue_depth_mean in requests, and slowdown_qP, the slowdown's quantile at
probability P.
"""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssjf.analysis.estimates import means
from ssjf.report import style
from ssjf.report.plots.common import facets, legend, named

KEYS = ["slots", "rho"]
LEVELS = {
    "jct_mean": "mean JCT (s)",
    "jct_p99": "p99 JCT (s)",
    "jct_max": "largest JCT (s)",
    "slowdown_mean": "mean slowdown",
    "slowdown_p99": "p99 slowdown",
    "slowdown_max": "largest slowdown",
}


def tail(runs: pd.DataFrame) -> Figure:
    """P(slowdown > s) over s, both axes logarithmic: slots (rows) by utilisation (columns).

    Lines are the quantiles averaged over runs.
    """
    with style.context():
        fig, axes = _grid(runs, 5.4, sharex=True, sharey=True)
        for ax, part in _cells(runs, axes):
            for series in part["series"].unique():
                curve = survival(part[part["series"] == series])
                look = style.look(series) | {"marker": ""}
                ax.plot(curve["slowdown"], curve["share"], **look)
        axes[0, 0].set(xscale="log", yscale="log", ylim=(1e-4, 1.2))
        drawn = [line.get_xdata().max() for ax in axes.flat for line in ax.lines]
        axes[0, 0].set_xlim(1, 1.2 * max(drawn))
        fig.supxlabel("slowdown s (JCT / time alone)", fontsize=10)
        fig.supylabel("share of requests slowed by more than s", fontsize=10)
        legend(fig, axes[0, 0], columns=3)
    return fig


def survival(runs: pd.DataFrame) -> pd.DataFrame:
    """One series' slowdown quantiles averaged over runs: columns slowdown, share above."""
    quantiles = runs.filter(regex=r"^slowdown_q").mean()
    probability = quantiles.index.str.removeprefix("slowdown_q").astype(float)
    return pd.DataFrame({"slowdown": quantiles.to_numpy(), "share": 1 - probability})


def tail_price(runs: pd.DataFrame) -> Figure:
    """p99 JCT over mean JCT (s), a point per policy with 95 % intervals: facets as in tail."""
    mean, p99 = means(runs, KEYS, "jct_mean"), means(runs, KEYS, "jct_p99")
    points = mean.merge(p99, on=[*KEYS, "series"], suffixes=("_x", "_y"))
    with style.context():
        fig, axes = _grid(runs, 5.0)
        for ax, part in _cells(points, axes):
            for _, point in part.iterrows():
                _point(ax, point)
            ax.margins(0.18)
            ax.locator_params(nbins=5)
        fig.supxlabel("mean JCT (s)", fontsize=10)
        fig.supylabel("p99 JCT (s)", fontsize=10)
        legend(fig, axes[0, 0], columns=3)
    return fig


def _point(ax: Axes, point: pd.Series) -> None:
    look: dict[str, Any] = style.look(point["series"])
    ax.errorbar(
        point["value_x"],
        point["value_y"],
        xerr=[[point["value_x"] - point["low_x"]], [point["high_x"] - point["value_x"]]],
        yerr=[[point["value_y"] - point["low_y"]], [point["high_y"] - point["value_y"]]],
        **look | {"linestyle": "none", "markersize": 8},
    )


def tail_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean, p99 and largest JCT (s) and slowdown with 95 % intervals, and queue depths."""
    keys = [*KEYS, "series"]
    table = runs[keys].drop_duplicates()
    for metric, name in LEVELS.items():
        names = {"value": name, "low": f"{name}, low", "high": f"{name}, high"}
        table = table.merge(means(runs, KEYS, metric).rename(columns=names), on=keys)
    depth = runs.groupby(keys)["queue_depth_mean"].mean().rename("queue depth").reset_index()
    return named(table.merge(depth, on=keys)).rename(columns={"rho": "ρ"})


def _grid(runs: pd.DataFrame, height: float, **shared):
    return facets(runs["slots"].nunique(), runs["rho"].nunique(), height, **shared)


def _cells(frame: pd.DataFrame, axes):
    """Every axes with its part of the frame, titled by slots and utilisation."""
    for row, slots in zip(axes, sorted(frame["slots"].unique()), strict=True):
        for ax, rho in zip(row, sorted(frame["rho"].unique()), strict=True):
            plural = "slot" if slots == 1 else "slots"
            ax.set_title(f"{slots} {plural}, ρ = {rho:g}")
            yield ax, frame[(frame["slots"] == slots) & (frame["rho"] == rho)]
