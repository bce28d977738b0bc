"""Lines over what is swept: arrival rate, burstiness, jobs, largest batch, trace scale.

All take rows per run: x, seed, run, mode, series, metrics in s and 1/s, run_id.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ssjf.analysis.estimates import against, means, spread_over_seeds, with_columns
from ssjf.report import style
from ssjf.report.plots.common import (
    MODES,
    WHAT,
    facets,
    legend,
    lines,
    named,
)

REDUCTION = "JCT reduction (%)"
FACTOR = "25 %-throughput (×)"


def sweep(runs: pd.DataFrame, xlabel: str, metrics: list[str]) -> Figure:
    """Metrics (rows) by batching mode (columns) over x; bands are 95 % intervals of means."""
    modes = list(runs["mode"].unique())
    estimates = {metric: means(runs, ["mode", "x"], metric) for metric in metrics}
    with style.context():
        height = 0.9 + 1.75 * len(metrics)
        fig, axes = facets(len(metrics), len(modes), height, sharex=True, sharey="row")
        for metric, row in zip(metrics, axes, strict=True):
            _row(row, estimates[metric], "mode", modes)
            row[0].set_ylabel(WHAT[metric])
        axes[0, 0].set_xticks(_some(runs["x"]))
        _finish(fig, axes, modes, xlabel)
    return fig


def sweep_table(
    runs: pd.DataFrame, by: list[str] | None = None, replay: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Gains over FCFS over all x: a row per key and series.

    JCT reduction in %, its 95 % interval from all seeds, the standard deviation (points) of
    the same figure made from one seed, the replayed seed 42 where ``replay`` (rows per run) is
    given; the factor of the 25 %-throughput likewise; the mean queue depth under FCFS.
    """
    by = by or ["mode"]
    table = _gains(runs, by)
    if runs["seed"].nunique() > 1:
        spread = spread_over_seeds(runs, by)
        table = with_columns(table, spread, by, spread="spread over seeds (points)")
    if replay is not None:
        published = _gains(replay, by)
        old = {REDUCTION: "reduction, seed 42 (%)", FACTOR: "25 %-throughput, seed 42 (×)"}
        table = with_columns(table, published, by, **old)
    fcfs = runs[runs["series"] == "fcfs"].groupby(by)["queue_depth_mean"].mean()
    return named(table.merge(fcfs.rename("FCFS queue depth").reset_index(), on=by))


def _gains(runs: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    reduction = against(runs, by).rename(
        columns={"value": REDUCTION, "low": "low (%)", "high": "high (%)"}
    )
    factor = against(runs, by, "throughput_25", "factor").rename(
        columns={"value": FACTOR, "low": "low (×)", "high": "high (×)"}
    )
    return reduction.merge(factor, on=[*by, "series"])


def batch_size(runs: pd.DataFrame) -> Figure:
    """Mean JCT (s) and its reduction (%) over the largest batch ``slots``, rates pooled."""
    modes = list(runs["mode"].unique())
    jct, gain = means(runs, ["mode", "slots"], "jct_mean"), against(runs, ["mode", "slots"])
    with style.context():
        fig, axes = facets(2, len(modes), 4.6, sharex=True, sharey="row")
        _row(axes[0], jct, "mode", modes, x="slots")
        _row(axes[1], gain, "mode", modes, x="slots")
        axes[0, 0].set_ylabel(WHAT["jct_mean"])
        axes[1, 0].set_ylabel("reduction of FCFS's\nmean JCT (%)")
        axes[0, 0].set_xticks(_some(runs["slots"]))
        _finish(fig, axes, modes, "largest batch (requests)")
    return fig


def azure(runs: pd.DataFrame) -> Figure:
    """Mean JCT (s) over the trace's scale (log axis): traces (rows) by mode (columns)."""
    modes, traces = list(runs["mode"].unique()), list(runs["workload"].unique())
    estimates = means(runs, ["workload", "mode", "x"], "jct_mean")
    with style.context():
        fig, axes = facets(len(traces), len(modes), 4.4, sharex=True, sharey="row")
        for trace, row in zip(traces, axes, strict=True):
            _row(row, estimates[estimates["workload"] == trace], "mode", modes)
            row[0].set_ylabel(f"Azure {trace}\nmean JCT (s)")
        for ax in axes.flat:
            ax.set(xscale="log", xticks=[1, 10, 100])
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        _finish(fig, axes, modes, "scale (× the recorded rate)")
    return fig


def _row(axes: list[Axes], estimates: pd.DataFrame, key: str, values: list, x: str = "x") -> None:
    for ax, value in zip(axes, values, strict=True):
        lines(ax, estimates[estimates[key] == value], x)


def _some(values: pd.Series) -> list[float]:
    """About five of the values, evenly picked: the ticks of an axis."""
    found = sorted(values.unique())
    return found[:: max(1, len(found) // 5)]


def _finish(fig: Figure, axes: np.ndarray, modes: list[str], xlabel: str) -> None:
    for ax in axes.flat:
        ax.set_ylim(0, None)
    for ax, mode in zip(axes[0], modes, strict=True):
        ax.set_title(MODES[mode])
    fig.supxlabel(xlabel, fontsize=10)
    legend(fig, axes[0, 0])
