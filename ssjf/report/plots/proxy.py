"""A trained proxy: its predictions against the truth, and what they are worth in the queue.

Rows per run: x, seed, run, slots, rho, series, jct_mean and jct_p99 in s.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssjf.analysis.estimates import against
from ssjf.experiments.draws import draw, to_requests
from ssjf.experiments.grid import experiment
from ssjf.proxy import io as folder
from ssjf.report import style
from ssjf.report.plots.common import facets, named
from ssjf.report.plots.quality import captured

KEYS = ["slots", "rho"]
WORDS = {
    "mae": "mean absolute error (tokens)",
    "rmse": "root mean squared error (tokens)",
    "r2": "R²",
    "accuracy": "accuracy in the paper's five classes",
    "macro_f1": "macro F1 in the paper's five classes",
    "within_one_class": "within one class",
    "kendall_tau_b": "Kendall's τ-b",
    "spearman": "Spearman's ρ",
    "pairs_2x": "pairs twice apart ordered rightly",
    "kendall_tau_b_of_mean": "Kendall's τ-b with the mean of four draws",
    "spearman_of_mean": "Spearman's ρ with the mean of four draws",
    "noise_ceiling_spearman": "Spearman's ρ of one draw with the mean of the others",
    "coverage_80": "coverage of the 80 % interval",
}


def proxy_quality(name: str = folder.BUILTIN) -> pd.DataFrame:
    """The quality on its test split that a proxy's card records, with intervals."""
    judged = folder.card(name)["test"]
    rows = [[WORDS[key], *values, *[np.nan] * (3 - len(values))] for key, values in judged.items()]
    return pd.DataFrame(rows, columns=["quality", "value", "low", "high"])


def proxy_gain(runs: pd.DataFrame) -> pd.DataFrame:
    """What each series is worth: reductions of mean and p99 JCT (%), share of the oracle's gain."""
    keys = [*KEYS, "series"]
    mean = against(runs, KEYS).rename(columns={"value": "mean JCT reduction (%)"})
    tail = against(runs, KEYS, "jct_p99").rename(columns={"value": "p99 JCT reduction (%)"})
    shares = _shares(runs).rename(columns={"value": "share of the oracle's gain (%)"})
    merged = mean.merge(tail[[*keys, "p99 JCT reduction (%)"]], on=keys)
    merged = merged.merge(shares[[*keys, "share of the oracle's gain (%)"]], on=keys)
    return named(merged).rename(columns={"rho": "ρ", "low": "low (%)", "high": "high (%)"})


def _shares(runs: pd.DataFrame) -> pd.DataFrame:
    others = [series for series in runs["series"].unique() if series != "fcfs"]
    return captured(runs, pd.DataFrame({"series": others}))


def light_proxy(runs: pd.DataFrame, name: str) -> Figure:
    """Predicted over true lengths of the test split, and the share captured by slots and ρ."""
    pool = to_requests(draw(experiment(name).workload["pool"]))
    with style.context():
        fig, axes = facets(1, 2, 3.2)
        left, right = axes[0]
        _scatter(left, pool.output_tokens, pool.predictions["predicted_tokens"])
        _bars(right, _shares(runs).query("series != 'sjf'"))
    return fig


def _scatter(ax: Axes, truth: np.ndarray, predicted: np.ndarray) -> None:
    ax.scatter(
        truth,
        predicted,
        s=5,
        alpha=0.25,
        color=style.look("ssjf-light")["color"],
        linewidths=0,
        rasterized=True,
    )
    ends = [truth.min(), truth.max()]
    ax.plot(ends, ends, color="#666666", lw=0.9)
    ax.set(xscale="log", yscale="log", xlabel="true length (tokens)")
    ax.set_ylabel("predicted length (tokens)")


def _bars(ax: Axes, shares: pd.DataFrame) -> None:
    cells = list(dict.fromkeys(zip(shares["slots"], shares["rho"], strict=True)))
    series = list(shares["series"].unique())
    for place, each in enumerate(series):
        part = shares[shares["series"] == each]
        at = np.arange(len(cells)) + (place - (len(series) - 1) / 2) * 0.3
        look = {**style.look(each), "linestyle": "none", "markersize": 7}
        bars = [part["value"] - part["low"], part["high"] - part["value"]]
        ax.errorbar(at, part["value"], bars, elinewidth=1.2, **look)
    words = [f"{slots} slot{'s' * (slots > 1)}\nρ = {rho:g}" for slots, rho in cells]
    ax.set_xticks(np.arange(len(cells)), words)
    ax.set(ylim=(0, 100), ylabel="share of the oracle's gain (%)")
    ax.legend(loc="lower right")
