"""Output lengths of LLMs, and what the spread of lengths is worth to a scheduler."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ssjf.analysis.estimates import against
from ssjf.report import style
from ssjf.report.plots.common import MODES, dots, facets, legend

MARKED = {"facecolor": "#D55E00", "alpha": 0.55}
PLAIN = {"facecolor": "#D7E3EE"}


def length_boxes(boxes: pd.DataFrame, marked: str) -> Figure:
    """Box plots of output lengths (tokens), by median; one LLM is marked.

    ``boxes`` is indexed by LLM; columns low, q1, median, q3, high (tokens), whiskers at 1.5
    IQR. Points beyond the whiskers are not known.
    """
    ordered = boxes.sort_values("median")
    with style.context():
        fig, ((ax,),) = facets(1, 1, 4.4)
        drawn = ax.bxp(
            [_box(str(llm), row) for llm, row in ordered.iterrows()],
            showfliers=False,
            patch_artist=True,
            widths=0.65,
            medianprops={"color": "black", "linewidth": 1.6},
        )
        for llm, patch, text in zip(
            ordered.index, drawn["boxes"], ax.get_xticklabels(), strict=True
        ):
            patch.set(**(MARKED if llm == marked else PLAIN))
            text.set(fontweight="bold" if llm == marked else "normal")
        ax.tick_params(axis="x", rotation=60)
        for text in ax.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")
        ax.set(ylabel="output length (tokens)", ylim=(0, None))
        ax.grid(visible=False, axis="x")
    return fig


def _box(llm: str, row: pd.Series) -> dict:
    return {
        "label": llm, "whislo": row["low"], "q1": row["q1"], "med": row["median"],
        "q3": row["q3"], "whishi": row["high"],
    }  # fmt: skip


def length_table(boxes: pd.DataFrame) -> pd.DataFrame:
    """The box statistics (tokens) by median, and the upper quartile over the median."""
    ordered = boxes.sort_values("median").reset_index()
    return ordered.assign(**{"q3 / median": ordered["q3"] / ordered["median"]})


def llm_gains(runs: pd.DataFrame) -> Figure:
    """JCT reduction (%) against FCFS by LLM (rows, by SJF's gain) and batching mode (columns).

    ``runs`` has a row per run: seed, run, mode, workload (the LLM), series, jct_mean in s.
    """
    modes = list(runs["mode"].unique())
    gains = against(runs, ["mode", "workload"])
    oracle = gains[gains["series"] == "sjf"]
    order = oracle.groupby("workload")["value"].mean().sort_values().index
    with style.context():
        fig, axes = facets(1, len(modes), 4.6, sharex=True, sharey=True)
        for ax, mode in zip(axes[0], modes, strict=True):
            part = gains[gains["mode"] == mode]
            for series in part["series"].unique():
                one = part[part["series"] == series].set_index("workload").loc[order]
                dots(ax, one, np.arange(len(order)))
            ax.set(title=MODES[mode], yticks=range(len(order)), yticklabels=order)
            ax.axvline(0, color="#666666", lw=0.8)
        fig.supxlabel("reduction of FCFS's mean JCT (%)", fontsize=10)
        legend(fig, axes[0, 0])
    return fig
