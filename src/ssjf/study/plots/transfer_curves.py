"""A predictor corrected by a few examples of a new LLM.

Rows of measurements: llm, draw, k (examples), method, mae_log, spearman.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssjf.study import bootstrap, style
from ssjf.study.plots.common import facets

LOOKS: dict[str, dict[str, str]] = {
    "as it is": {"color": "#000000", "marker": "s", "linestyle": "--"},
    "factor": {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    "isotonic": {"color": "#D55E00", "marker": "^", "linestyle": "-."},
    "ridge": {"color": "#009E73", "marker": "D", "linestyle": ":"},
}
SHIFTS = {"as it is": 0.0, "factor": -0.15, "isotonic": 0.0, "ridge": 0.15}
METRICS = {
    "mae_log": "mean |log predicted − log true|",
    "spearman": "Spearman's ρ with the true lengths",
}


def few_shot(shots: pd.DataFrame) -> Figure:
    """Error of the log length and rank correlation over the number of examples, per method."""
    with style.context():
        fig, axes = facets(1, 2, 3.4)
        for ax, metric in zip(axes[0], METRICS, strict=True):
            _curves(ax, few_shot_estimates(shots, metric))
            ax.set(xlabel="examples of the new LLM", ylabel=METRICS[metric])
        handles = axes[0, 0].get_legend_handles_labels()
        fig.legend(*handles, loc="outside upper center", ncols=len(LOOKS))
    return fig


def _curves(ax: Axes, estimates: pd.DataFrame) -> None:
    examples = sorted(estimates["k"].unique())
    start = estimates[estimates["method"] == "as it is"]
    for method, shift in SHIFTS.items():
        part = estimates[estimates["method"] == method].sort_values("k")
        at = np.array([examples.index(k) + shift for k in part["k"]])
        if method == "as it is":
            ax.axhline(part["value"].item(), color="#000000", lw=0.9, ls="--")
        else:
            lead = pd.concat([start, part])
            ax.plot([0, *at], lead["value"], **{**LOOKS[method], "marker": ""}, lw=1.2)
        bars = [part["value"] - part["low"], part["high"] - part["value"]]
        shape: dict[str, Any] = LOOKS[method] | {"linestyle": "none", "label": method}
        ax.errorbar(at, part["value"], np.abs(bars), elinewidth=1.1, **shape)
    ax.set_xticks(range(len(examples)), [str(k) for k in examples])


def few_shot_estimates(shots: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Means over LLMs with intervals over LLMs: columns k, method, value, low, high."""
    found = []
    for (k, method), part in shots.groupby(["k", "method"], sort=False):
        per_llm = part.groupby("llm")[metric].mean()  # over draws
        found.append({"k": k, "method": method} | bootstrap.interval(per_llm)._asdict())
    return pd.DataFrame(found)
