"""Heads of one encoder: how well each predicts, and what each is worth in a queue.

``runs`` are rows per prompt of experiment heads; ``gain`` rows per run of experiment gain;
``published`` rows per run of experiment heads-published.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssjf.analysis.estimates import against
from ssjf.analysis.predictions import confusion, judged
from ssjf.experiments.draws import draw
from ssjf.report import style
from ssjf.report.plots.common import facets, with_bars
from ssjf.report.plots.proxies import shares_of
from ssjf.request import PAPER_THRESHOLDS

PAPER = {
    "l1": "L1 regression (paper)",
    "mse": "MSE regression (paper)",
    "3-class": "3 classes (paper)",
    "5-class": "5 classes (paper)",
    "ordinal-l1": "ordinal, L1 (paper)",
    "ordinal-mse": "ordinal, MSE (paper)",
    "5-class-expected": "5 classes, expected length",
    "pairwise": "pairwise margin",
    "listmle": "ListMLE",
    "log-mse": "MSE on logarithms",
    "quantiles": "quantiles",
}
IN_TABLE = ("accuracy", "macro_f1", "precision", "recall", "kendall_tau_b", "spearman", "mae",
            "coverage_80")  # fmt: skip
POOL = {"draw": "length-pool", "requests": 100000, "seed": 42}  # the authors' own predictions


def heads_quality(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per head: measures with their 95 % intervals, as text."""
    table = with_bars(judged(runs, metrics=IN_TABLE), IN_TABLE)
    return table.assign(head=table["series"].map(PAPER)).set_index("head").drop(columns="series")


def heads_published(published: pd.DataFrame) -> pd.DataFrame:
    """The paper's own simulation with our predictions: JCT reduction (%) and throughput (×)."""
    jct = against(published, ["mode"])
    through = against(published, ["mode"], "throughput_25", "factor")
    parts = {}
    for mode in published["mode"].unique():
        for name, found, unit in (("mean JCT reduction", jct, "%"), ("throughput", through, "×")):
            part = found[found["mode"] == mode].set_index("series")
            parts[f"{mode}: {name} ({unit})"] = [
                f"{row.value:.3g} [{row.low:.3g}, {row.high:.3g}]" for row in part.itertuples()
            ]
    index = jct[jct["mode"] == jct["mode"].iloc[0]]["series"]
    return pd.DataFrame(parts, index=[_named(each) for each in index]).rename_axis("head")


def _named(series: str) -> str:
    name = series.partition(":")[2]
    return PAPER.get(name, style.look(series)["label"])


def heads(runs: pd.DataFrame, gain: pd.DataFrame) -> Figure:
    """Kendall's tau-b of every head, and the share of the oracle's gain it captures."""
    taus = judged(runs, metrics=["kendall_tau_b"]).sort_values("value")
    shares = shares_of(gain).query("slots == 1 and rho == 0.9").set_index("series")
    order = list(taus["series"])
    with style.context():
        fig, axes = facets(1, 2, 4.0, sharey=True)
        left, right = axes[0]
        _dots(left, taus.set_index("series").loc[order])
        _dots(right, shares.loc[[f"head:{name}" for name in order]])
        left.set_yticks(np.arange(len(order)), [PAPER[name] for name in order])
        left.set_xlabel("Kendall's τ-b")
        right.set(xlabel="share of the oracle's gain (%)", title="1 slot, ρ 0.9")
        left.set_title("test split")
    return fig


def _dots(ax: Axes, found: pd.DataFrame) -> None:
    look = style.proxy_look("head:any")
    bars = np.abs([found["value"] - found["low"], found["high"] - found["value"]])
    ax.errorbar(found["value"], np.arange(len(found)), xerr=bars, linestyle="none",
                color=look["color"], marker=look["marker"], elinewidth=1.2)  # fmt: skip


def confusions(runs: pd.DataFrame) -> Figure:
    """Which class is taken for which: two heads of ours, and the authors' on their own data."""
    authors = draw(POOL)
    true = np.searchsorted(PAPER_THRESHOLDS, authors["output_tokens"], side="right")
    theirs = pd.DataFrame({"true_class": true, "predicted_class": authors["cls5"]})
    shown = {
        "5 classes": runs[runs["series"] == "5-class"],
        "L1 regression, binned": runs[runs["series"] == "l1"],
        "the authors' BERT\n(LMSYS-Chat-1M)": theirs,
    }
    with style.context():
        fig, axes = facets(1, 3, 2.9, sharey=True)
        for ax, (title, part) in zip(axes[0], shown.items(), strict=True):
            image = _matrix(ax, 100 * confusion(part), title)
        axes[0, 0].set_ylabel("true class (1 is shortest)")
        fig.colorbar(image, ax=axes[0], label="share of the true class (%)", shrink=0.8)
    return fig


def _matrix(ax: Axes, shares: np.ndarray, title: str):
    image = ax.imshow(shares, cmap="cividis", vmin=0, vmax=100)
    for (row, column), value in np.ndenumerate(shares):
        colour = "black" if value > 55 else "white"
        ax.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=8)
    numbers = [str(i + 1) for i in range(len(shares))]
    ax.set_xticks(range(len(shares)), numbers)
    ax.set_yticks(range(len(shares)), numbers)
    ax.grid(False)
    ax.set(title=title, xlabel="predicted class")
    return image


def residuals(runs: pd.DataFrame, series: str) -> Figure:
    """Predicted minus true length, and predicted over true, of one head."""
    part = runs[runs["series"] == series]
    truth, said = part["output_tokens"], part["predicted_tokens"]
    colour = style.proxy_look("head:any")["color"]
    with style.context():
        fig, axes = facets(1, 2, 3.0)
        left, right = axes[0]
        left.hist(said - truth, bins=60, color=colour)
        left.axvline(0, color="#666666", lw=0.9)
        left.set(xlabel="predicted − true length (tokens)", ylabel="prompts")
        right.scatter(truth, said, s=5, alpha=0.3, color=colour, linewidths=0, rasterized=True)
        ends = [1, truth.max()]
        right.plot(ends, ends, color="#666666", lw=0.9)
        right.set(xlabel="true length (tokens)", ylabel="predicted length (tokens)")
    return fig
