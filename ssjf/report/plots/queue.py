"""One queue served by two policies, request by request."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssjf.report import style
from ssjf.report.plots.common import facets
from ssjf.request import Completions


def queue(runs: Mapping[str, Completions], title: str = "") -> Figure:
    """A Gantt chart per policy, and the share of requests finished within a JCT (s).

    ``runs`` maps two policies to what they made of the same requests. A row of a Gantt chart
    is a request in order of arrival, light while it waits, dark while it runs.
    """
    with style.context():
        fig, axes = facets(2, len(runs), 5.4)
        shares = _merged(fig, axes[1])
        for ax, (name, run) in zip(axes[0], runs.items(), strict=True):
            _gantt(ax, run, style.look(name))
            _share(shares, run, style.look(name))
            ax.sharex(axes[0, 0])
        axes[0, 0].set_ylabel("request, by arrival")
        shares.set(xlabel="JCT (s)", ylabel="share of requests\nfinished within")
        shares.set(xlim=(0, None), ylim=(0, 1.02))
        shares.legend(loc="lower right")
        fig.suptitle(title, fontsize=9)
    return fig


def _merged(fig: Figure, axes: np.ndarray) -> Axes:
    """One axes in the place of the second row."""
    grid = axes[0].get_gridspec()
    for ax in axes:
        ax.remove()
    return fig.add_subplot(grid[1, :])


def _gantt(ax: Axes, run: Completions, look: dict[str, str]) -> None:
    rows, arrived = np.arange(len(run)), run.requests.arrived_at
    bar: dict[str, Any] = {"color": look["color"], "lw": max(0.8, 150 / len(run))}
    ax.hlines(rows, arrived, run.scheduled_at, alpha=0.22, **bar)
    ax.hlines(rows, run.scheduled_at, run.finished_at, **bar)
    ax.set(title=look["label"], xlabel="time (s)", ylim=(len(run), -1), xlim=(0, None))
    ax.grid(visible=False, axis="y")


def _share(ax: Axes, run: Completions, look: dict[str, str]) -> None:
    jct = run.finished_at - run.requests.arrived_at
    ax.ecdf(jct, color=look["color"], linestyle=look["linestyle"], label=look["label"])
