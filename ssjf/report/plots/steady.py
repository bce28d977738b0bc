"""The gain over slots and utilisation, steady state.

Rows per run: x, seed, run, slots, rho, series, jct_mean in s, queue_depth_mean in requests.
"""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssjf.analysis.estimates import against
from ssjf.report import style
from ssjf.report.plots.common import facets, named

KEYS = ["slots", "rho"]


def steady_map(runs: pd.DataFrame, series: list[str]) -> Figure:
    """A heat map per series: JCT reduction (%) and, small, FCFS's mean queue depth."""
    gains, depth = against(runs, KEYS), _depth(runs)
    with style.context():
        fig, axes = facets(1, len(series), 3.6, sharey=True)
        for ax, one in zip(axes[0], series, strict=True):
            image = _map(ax, gains[gains["series"] == one], depth)
            ax.set(title=style.look(one)["label"], xlabel="utilisation ρ")
        axes[0, 0].set_ylabel("slots (requests at a time)")
        fig.colorbar(image, ax=axes, label="reduction of FCFS's mean JCT (%)", pad=0.02)
    return fig


def _map(ax: Axes, gains: pd.DataFrame, depth: pd.Series):
    grid = gains.pivot(index="slots", columns="rho", values="value")
    image = ax.imshow(grid, cmap="viridis", vmin=0, vmax=60, origin="lower", aspect="auto")
    for row, slots in enumerate(grid.index):
        for column, rho in enumerate(grid.columns):
            value = grid.loc[slots, rho]
            ink: dict[str, Any] = {"color": "white" if value < 36 else "black", "ha": "center"}
            ax.text(column, row + 0.06, f"{value:.1f}", va="bottom", fontweight="bold", **ink)
            ax.text(column, row - 0.06, _short(depth[slots, rho]), va="top", fontsize=8, **ink)
    ax.set_xticks(range(grid.shape[1]), [f"{rho:g}" for rho in grid.columns])
    ax.set_yticks(range(grid.shape[0]), [str(slots) for slots in grid.index])
    ax.grid(visible=False)
    return image


def steady_table(runs: pd.DataFrame, authors: pd.DataFrame) -> pd.DataFrame:
    """Gains with 95 % intervals beside those measured with the authors' code (%).

    ``authors`` has columns slots, rho and one per series.
    """
    theirs = authors.melt(KEYS, var_name="series", value_name="authors' code (%)")
    table = against(runs, KEYS).merge(theirs, "left", [*KEYS, "series"])
    table["difference (points)"] = table["value"] - table["authors' code (%)"]
    table = table.merge(_depth(runs).rename("FCFS queue depth").reset_index(), on=KEYS)
    words = {"value": "JCT reduction (%)", "low": "low (%)", "high": "high (%)", "rho": "ρ"}
    return named(table).rename(columns=words)


def _depth(runs: pd.DataFrame) -> pd.Series:
    fcfs = runs[runs["series"] == "fcfs"]
    return fcfs.groupby(KEYS)["queue_depth_mean"].mean()


def _short(depth: float) -> str:
    return f"{depth:.2f}" if depth < 1 else f"{depth:.1f}"
