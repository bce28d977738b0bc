"""ALISE and its baselines: latency over the rate, highest rates under a bound, what earns them.

Rows per run and seed as ``study.alise`` gives them: x, seed, run, shape, workload, series, rate
(1/s), normalised latencies in s a token, what was swapped.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssjf.analysis.estimates import against, means
from ssjf.report import style
from ssjf.report.plots.common import facets, legend, lines

BASE = "vllm"
_GREY = "#444444"


def alise_curves(runs: pd.DataFrame, bound: float) -> Figure:
    """Mean normalised latency (s a token) over the load, a panel per data set; the bound dashed."""
    found = means(runs, ["workload", "x"], "normalised_latency_mean")
    with style.context():
        fig, axes = facets(1, found["workload"].nunique(), 4.0, sharey=True)
        for ax, workload in zip(axes[0], found["workload"].unique(), strict=True):
            lines(ax, found[found["workload"] == workload])
            ax.axhline(bound, color=_GREY, lw=0.8, ls="--")
            ax.set(yscale="log", title=workload, xlabel="request rate / vLLM's saturation rate")
        axes[0, 0].set_ylabel("mean normalised latency\n(s per output token)")
        legend(fig, axes[0, 0], 3)
    return fig


def alise_limits(runs: pd.DataFrame, bound: float) -> Figure:
    """Highest rate under the bound over vLLM's: a row per shape, a panel per data set."""
    found = factors(runs[np.isclose(runs["x"], bound)], ["shape", "workload"])
    shapes, workloads = found["shape"].unique(), found["workload"].unique()
    with style.context():
        fig, axes = facets(1, len(workloads), 1.4 + 0.5 * len(shapes), sharey=True)
        for ax, workload in zip(axes[0], workloads, strict=True):
            part = found[found["workload"] == workload]
            for i, series in enumerate(part["series"].unique()):
                one = part[part["series"] == series].set_index("shape").loc[shapes]
                _dots(ax, one, np.arange(len(shapes)) + 0.14 * (i - 2), style.look(series))
            ax.axvline(1, color=_GREY, lw=0.8)
            ax.set(title=workload, xlabel="highest rate / vLLM's", ylim=(len(shapes) - 0.5, -0.5))
        axes[0, 0].set_yticks(range(len(shapes)), shapes)
        legend(fig, axes[0, 0], 3)
    return fig


def alise_ablation(runs: pd.DataFrame, bound: float) -> Figure:
    """Highest rate under the bound over vLLM's, with one mechanism changed at a time."""
    return _changed(factors(runs[np.isclose(runs["x"], bound)], ["workload"]))


def alise_sensitivity(runs: pd.DataFrame) -> Figure:
    """Highest rate over that of a vLLM with as much KV memory, as memory and more vary."""
    found = factors(runs, ["workload", "kv_share"])
    words = "KV × " + found["kv_share"].map("{:g}".format) + ": "
    other = found["series"].where(found["series"] != "alise", "as it is")
    return _changed(found.assign(series=words + other))


def _changed(found: pd.DataFrame) -> Figure:
    """A row per change, a panel per data set."""
    workloads, names = found["workload"].unique(), list(found["series"].unique())
    with style.context():
        fig, axes = facets(1, len(workloads), 1.0 + 0.3 * len(names), sharey=True)
        for ax, workload in zip(axes[0], workloads, strict=True):
            part = found[found["workload"] == workload].set_index("series").loc[names]
            for at, name in enumerate(names):
                looks = style.look("alise") | ({} if name == "alise" else {"marker": "o"})
                _dots(ax, part.loc[[name]], np.array([at]), looks)
            if "alise" in names:
                whole = part.loc["alise", "value"]
                ax.axvline(whole, color=style.look("alise")["color"], lw=0.8, ls="--")
            ax.axvline(1, color=_GREY, lw=0.8)
            ax.set(title=workload, xlabel="highest rate / vLLM's", ylim=(len(names) - 0.5, -0.5))
        labels = ["ALISE (ours), whole" if name == "alise" else name for name in names]
        axes[0, 0].set_yticks(range(len(names)), labels)
    return fig


def factors(runs: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Each system's highest rate over vLLM's on the same seeds; columns by, series, value, …."""
    return against(runs, by, "rate", "factor", BASE)


def _dots(ax: Axes, part: pd.DataFrame, at: np.ndarray, looks: dict[str, Any]) -> None:
    bars = np.abs([part["value"] - part["low"], part["high"] - part["value"]])
    ax.errorbar(part["value"], at, xerr=bars, color=looks["color"], marker=looks["marker"],
                linestyle="none", elinewidth=1.1, label=looks["label"])  # fmt: skip


def alise_table(runs: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Highest rates over vLLM's with 95 % intervals, a column per bound; and what they take."""
    runs = runs.assign(bound=[f"≤ {bound:g} s/token" for bound in runs["x"].round(6)])
    found = factors(runs, [*by, "bound"])
    found["cell"] = [f"{v:.2f} [{a:.2f}, {b:.2f}]" for v, a, b in
                     found[["value", "low", "high"]].itertuples(index=False)]  # fmt: skip
    keys = [*by, "series"]
    wide = found.pivot_table("cell", keys, "bound", "first", sort=False).reset_index()
    return _labelled(wide)


def alise_costs(runs: pd.DataFrame, by: list[str], bound: float) -> pd.DataFrame:
    """What a system does at its highest rate under the bound: means over seeds, per request."""
    part = runs[np.isclose(runs["x"], bound)]
    columns = {
        "rate": "rate (1/s)", "normalised_latency_p99": "p99 normalised latency (s/token)",
        "jain_slowdown": "Jain's fairness of slowdown", "preemptions_per_request": "preemptions",
        "swaps_out_per_request": "swaps out", "recomputed_tokens_per_request": "recomputed tokens",
        "swapped_share": "share ever swapped", "swapped_seconds_mean": "mean time swapped (s)",
    }  # fmt: skip
    wide = part.groupby([*by, "series"], sort=False)[list(columns)].mean().reset_index()
    return _labelled(wide.rename(columns=columns))


def _labelled(table: pd.DataFrame) -> pd.DataFrame:
    words = table["series"].map(lambda series: style.look(series)["label"])
    if "keeps_up" in table:
        kept = table["keeps_up"].map({True: "bound, and keeps up", False: "bound alone"})
        table = table.assign(keeps_up=kept)
    names = {"series": "system", "workload": "data set", "keeps_up": "constraint"}
    return table.assign(series=words).rename(columns=names)
