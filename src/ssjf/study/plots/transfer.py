"""Transfer between LLMs: how alike their lengths are, and what predictors of one do for another.

Rows of measurements: quantity, of, llm, value, low, high (see ``ssjf.study.transfer``).
"""

import re
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssjf.proxy import folder
from ssjf.study import style
from ssjf.study.experiments import experiment, rows
from ssjf.study.plots.common import facets


def measured(name: str, series: str) -> pd.DataFrame:
    """The rows of one measure of an experiment."""
    return rows(name, lambda spec: spec["series"] == series)


def listed_llms(name: str) -> list[str]:
    """The LLMs that an experiment lists."""
    return list(experiment(name).common["llms"])


def short(llm: str) -> str:
    """An LLM's name without dates and what nearly all names hold."""
    return re.sub(r"-(\d{8}|\d{4}-\d\d-\d\d|instruct|chat|hf|turbo|v[\d.]+)(?=-|$)", "", llm,
                  flags=re.IGNORECASE)  # fmt: skip


def by_likeness(agreement: pd.DataFrame, llms: list[str]) -> list[str]:
    """The LLMs so ordered that those of like lengths stand together: clusters by 1 - Spearman's ρ
    (average linkage, leaves turned to their nearest)."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    apart = 1 - symmetric(agreement, llms).to_numpy()
    np.fill_diagonal(apart, 0)
    tree = linkage(squareform(apart), "average", optimal_ordering=True)
    return [llms[i] for i in leaves_list(tree)]


def symmetric(agreement: pd.DataFrame, llms: list[str]) -> pd.DataFrame:
    """Spearman's ρ of every two of the LLMs, NaN on the diagonal."""
    pairs = agreement[agreement["quantity"] == "spearman"]
    half = pairs.pivot(index="of", columns="llm", values="value").reindex(index=llms, columns=llms)
    return half.fillna(half.T)


def likeness_map(agreement: pd.DataFrame, llms: list[str]) -> Figure:
    """A heat map of Spearman's ρ of the lengths of every two LLMs, in the order given."""
    return _map(symmetric(agreement, llms), "Spearman's ρ of two LLMs' lengths", "", "")


def learned_map(learned: pd.DataFrame, llms: list[str]) -> Figure:
    """A heat map of what a predictor trained on one LLM (row) is worth for another (column)."""
    pairs = learned[learned["quantity"] == "spearman"]
    grid = pairs.pivot(index="of", columns="llm", values="value").loc[llms, llms]
    label = "Spearman's ρ of predicted and true lengths, held-out prompts"
    return _map(grid, label, "predictor trained on the lengths of", "requests answered by")


def _map(grid: pd.DataFrame, label: str, rows_label: str, columns_label: str) -> Figure:
    with style.context():
        fig, axes = facets(1, 1, 6.4)
        ax = axes[0, 0]
        image = ax.imshow(grid, cmap="viridis", aspect="auto")
        ax.set_xticks(range(len(grid)), map(short, grid.columns), rotation=90, fontsize=8)
        ax.set_yticks(range(len(grid)), map(short, grid.index), fontsize=8)
        ax.set(xlabel=columns_label, ylabel=rows_label)
        ax.grid(visible=False)
        fig.colorbar(image, ax=ax, label=label, pad=0.02)
    return fig


def shipped_dots(builtin: pd.DataFrame, learned: pd.DataFrame, llms: list[str]) -> Figure:
    """Per LLM: the shipped proxy, a predictor trained on this LLM, and those of the others."""
    found = builtin[builtin["quantity"] == "spearman"].set_index(["of", "llm"])
    order = sorted(llms, key=lambda llm: found.loc[("shipped", llm), "value"])
    with style.context():
        fig, axes = facets(1, 1, 6.4)
        ax = axes[0, 0]
        for (of, words), look, shift in zip(_whose().items(), SHAPES, (0.25, 0), strict=True):
            part = found.loc[of].loc[order]
            bars = [part["value"] - part["low"], part["high"] - part["value"]]
            shape: dict[str, Any] = look | {"linestyle": "none", "markersize": 4, "label": words}
            at = np.arange(len(order)) + shift
            ax.errorbar(part["value"], at, xerr=np.abs(bars), elinewidth=1.1, **shape)
        _others(ax, learned, order)
        ax.set_yticks(range(len(order)), map(short, order), fontsize=8)
        ax.set_xlabel("Spearman's ρ of predicted and true lengths")
        fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=1)
    return fig


SHAPES: list[dict[str, Any]] = [
    {"color": "#0072B2", "marker": "o"},
    {"color": "#D55E00", "marker": "^"},
]


def _whose() -> dict[str, str]:
    card = folder.card(folder.builtin_folder())
    prompts = f"{card['rows']['train']:,} prompts"
    return {
        "shipped": f"shipped proxy, trained on {prompts} with Vicuna-7B's lengths",
        "own": "trained on the lengths of this LLM, cross-validated",
    }


def _others(ax: Axes, learned: pd.DataFrame, order: list[str]) -> None:
    pairs = learned[(learned["quantity"] == "spearman") & learned["of"].isin(order)]
    pairs = pairs[pairs["of"] != pairs["llm"]]
    at = pairs["llm"].map({llm: i for i, llm in enumerate(order)}) - 0.25
    ax.scatter(pairs["value"], at, s=14, color="#555555", marker="|", lw=0.8,
               label="trained on each of the other LLMs shown, same folds")  # fmt: skip
