"""What ``ssjf serve`` costs and gains over ``vllm serve``; rows as of ``study.load_summary``."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ssjf.analysis import bootstrap
from ssjf.analysis import server_load as load_summary
from ssjf.analysis.bootstrap import Estimate
from ssjf.analysis.server_load import ALONE, BURST, PLAIN, QUEUED
from ssjf.report import style
from ssjf.report.plots.common import facets

IN_ORDER = "served-fcfs"  # `ssjf serve` that keeps the order of arrival: it only costs
LABELS = {
    PLAIN: "vllm serve",
    IN_ORDER: "ssjf serve, overtake 0 s",
    "ssjf-light": "ssjf serve, overtake none",
    "ssjf-light-aged": "ssjf serve (30 s)",
}
REDUCED = ("e2el_mean", "e2el_p99", "ttft_mean", "ttft_p99")
GOAL_OVERHEAD_MS = 1.0
_GREY = "#444444"


def server_latency(rows: pd.DataFrame) -> Figure:
    """Mean (filled) and p99 (hollow) of E2EL and TTFT by server, a row of facets per load."""
    found = load_summary.estimates(rows)
    with style.context():
        fig, axes = facets(2, 2, 4.8, sharey=True)
        for load, beside in zip((QUEUED, BURST), axes, strict=True):
            for ax, name in zip(beside, ("e2el", "ttft"), strict=True):
                _dots(ax, found[found["workload"] == load], name)
            beside[0].set_ylabel(load)
        axes[1, 0].set_xlabel("time to the last token, E2EL (s)")
        axes[1, 1].set_xlabel("time to the first token, TTFT (s)")
        marks: dict[str, Any] = {"color": _GREY, "marker": "o", "ls": "none"}
        handles = [Line2D([], [], label="mean", **marks),
                   Line2D([], [], label="p99", mfc="white", **marks)]  # fmt: skip
        fig.legend(handles=handles, loc="outside upper center", ncols=2)
    return fig


def _dots(ax: Axes, part: pd.DataFrame, name: str) -> None:
    for at, series in enumerate(LABELS):
        look = style.look(PLAIN if series == IN_ORDER else series)
        marker = "s" if series == IN_ORDER else look["marker"]
        for statistic, fill in (("mean", look["color"]), ("p99", "white")):
            one = part[(part["series"] == series) & (part["metric"] == f"{name}_{statistic}")]
            value, low, high = one[["value", "low", "high"]].to_numpy()[0]
            ax.errorbar([value], [at], xerr=[[value - low], [high - value]], color=look["color"],
                        marker=marker, mfc=fill, linestyle="none", elinewidth=1.2)  # fmt: skip
    ax.set_yticks(range(len(LABELS)), [*LABELS.values()])
    ax.set_ylim(len(LABELS) - 0.5, -0.5)
    ax.set_xlim(left=0)


def server_table(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per load and server: latencies, throughput, overhead, with 95 % intervals."""
    return load_summary.table(rows, LABELS)


def server_gain(rows: pd.DataFrame) -> pd.DataFrame:
    """Reduction (%) of latencies against ``vllm serve`` under queues; below zero they grow."""
    found = load_summary.reductions(rows[rows["workload"].isin([QUEUED, BURST])])
    estimates = found[["value", "low", "high"]].to_numpy()
    found["text"] = [load_summary.cell(*each) for each in estimates]
    wide = found.pivot_table("text", ["workload", "series"], "metric", "first", sort=False)
    named = {metric: f"{load_summary.WORDS[metric].partition(' (')[0]} (%)" for metric in REDUCED}
    wide = wide[[*REDUCED]].rename(columns=named).reset_index()
    labelled = wide.assign(series=wide["series"].map(LABELS))
    return labelled.rename(columns={"workload": "load", "series": "server"})


def server_goals(rows: pd.DataFrame) -> pd.DataFrame:
    """What the middleware may cost and what it costs, with a verdict."""
    found = [
        *(
            (f"middleware without its predictor, {load} (ms)", GOAL_OVERHEAD_MS, _own(rows, load))
            for load in (ALONE, QUEUED, BURST)
        ),
    ]
    plain, in_order = (_of(rows, ALONE, series) for series in (PLAIN, IN_ORDER))
    predictor = float(load_summary.per_seed(in_order)["predictor_ms"].mean())
    rise = load_summary.ttft_rise_ms(plain, in_order)
    goal = GOAL_OVERHEAD_MS + predictor
    found.append((f"TTFT later at the client, {ALONE} (ms)", goal, rise))
    return pd.DataFrame(
        {
            "cost": cost,
            "goal": f"at most {goal:.3g}",
            "measured": load_summary.cell(*estimate),
            "verdict": verdict(goal, estimate),
        }
        for cost, goal, estimate in found
    )


def verdict(goal: float, found: Estimate) -> str:
    """Whether a cost is within its goal, as far as the interval tells."""
    if np.isnan(found.high):
        return "not decided: there is no interval"
    if found.high <= goal:
        return "met"
    return "missed" if found.low > goal else "not decided: the interval holds the goal"


def _own(rows: pd.DataFrame, load: str) -> Estimate:
    """The middleware's time (ms) less its predictor's, over runs of every server that has it."""
    part = rows[(rows["workload"] == load) & (rows["series"] != PLAIN)]
    runs = part.groupby(["series", "seed"])[["overhead_ms", "predictor_ms"]].first().reset_index()
    own = (runs["overhead_ms"] - runs["predictor_ms"]).to_numpy(np.float64)
    return bootstrap.interval(own, groups=runs["seed"])


def _of(rows: pd.DataFrame, load: str, series: str) -> pd.DataFrame:
    return rows[(rows["workload"] == load) & (rows["series"] == series)]
