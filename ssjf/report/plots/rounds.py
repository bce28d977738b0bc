"""Rounds of a conversation: how well later turns are predicted, and what that is worth.

``runs`` are rows per turn of experiment rounds (columns workload and turn); ``gain`` rows per
run of experiment rounds-gain or rounds-published (columns workload and round).
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssjf.analysis.estimates import against
from ssjf.analysis.predictions import judged
from ssjf.report import style
from ssjf.report.plots.common import facets

ROUNDS = 5
WORKLOADS = {"sharegpt": "ShareGPT (ChatGPT)", "moss": "MOSS (gpt-3.5-turbo)"}
MEASURED = {
    "accuracy": "accuracy, 5 classes",
    "macro_f1": "macro F1",
    "kendall_tau_b": "Kendall's τ-b",
    "spearman": "Spearman's ρ",
}
LOOKS = {
    "light-turn": ("#332288", "p", "-", "light, the turn alone"),
    "light-history": ("#332288", "p", ":", "light, whole history"),
    "encoder-turn": ("#AA4499", "D", "-", "MiniLM (frozen), the turn alone"),
    "encoder-history": ("#AA4499", "D", ":", "MiniLM (frozen), whole history"),
}


def rounds_quality(runs: pd.DataFrame) -> pd.DataFrame:
    """Columns workload, turn, series, metric, value, low, high: rounds 1 to 5."""
    kept = runs[runs["turn"] <= ROUNDS]
    return judged(kept, ("workload", "turn", "series"), MEASURED)


def rounds_table(quality: pd.DataFrame, gain: pd.DataFrame) -> pd.DataFrame:
    """A row per data, predictor and round: accuracy, macro F1, ranks, and JCT reduction (%)."""
    keys = ["workload", "series", "turn"]
    wide = quality[quality["metric"].isin(MEASURED)].pivot_table("value", keys, "metric", "first")
    found = wide.rename(columns=MEASURED)[[*MEASURED.values()]].reset_index()
    jct = against(gain, ["workload", "round"])
    jct["series"] = jct["series"].str.removeprefix("proxy:")
    jct = jct.rename(columns={"round": "turn", "value": "mean JCT reduction (%)"})
    table = found.merge(jct[[*keys, "mean JCT reduction (%)", "low", "high"]], on=keys)
    table = table.rename(columns={"turn": "round", "low": "low (%)", "high": "high (%)"})
    words = {name: look[3] for name, look in LOOKS.items()}
    named = {"workload": table["workload"].map(WORKLOADS), "series": table["series"].map(words)}
    return table.assign(**named).rename(columns={"workload": "data", "series": "predictor"})


def rounds(quality: pd.DataFrame, gain: pd.DataFrame) -> Figure:
    """Over rounds 1 to 5: rank correlation (above) and reduction of the mean JCT (below)."""
    ranks = quality[quality["metric"] == "kendall_tau_b"].rename(columns={"turn": "x"})
    jct = against(gain, ["workload", "round"]).rename(columns={"round": "x"})
    with style.context():
        fig, axes = facets(2, 2, 5.4, sharex=True, sharey="row")
        for column, (workload, title) in enumerate(WORKLOADS.items()):
            upper, lower = axes[:, column]
            _lines(upper, ranks[ranks["workload"] == workload])
            _lines(lower, jct[jct["workload"] == workload])
            upper.set_title(title)
            lower.set_xlabel("round of the conversation")
        axes[0, 0].set_ylabel("Kendall's τ-b")
        axes[1, 0].set_ylabel("mean JCT reduction (%)")
        handles, labels = axes[1, 0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside upper center", ncols=2)
    return fig


def _lines(ax: Axes, found: pd.DataFrame) -> None:
    for series in found["series"].unique():
        part = found[found["series"] == series].sort_values("x")
        name = series.removeprefix("proxy:")
        aside = 0.05 * (list(LOOKS).index(name) - 1.5) if name in LOOKS else 0.0
        colour, marker, line, label = LOOKS.get(name) or tuple(style.look(series).values())
        bars = np.abs([part["value"] - part["low"], part["high"] - part["value"]])
        ax.errorbar(part["x"] + aside, part["value"], bars, color=colour, marker=marker,
                    linestyle=line, label=label, elinewidth=1)  # fmt: skip
    ax.set_xticks(range(1, ROUNDS + 1))
