"""The quirk ablation drawn; frames are what ``ablation_estimates`` returns."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssjf.report import style
from ssjf.report.plots import quirks
from ssjf.report.plots.common import MODES, dots, facets, legend

OFFSETS = (0.18, -0.18)  # of two series on one row
FRAMED: dict[str, Any] = {"color": "#eeeeee", "zorder": 0}
READINGS = {
    "first quarter (published)": ("quarter", quirks.ALL_ON, "full"),
    "all finished / makespan": ("makespan", quirks.ALL_ON, "left"),
    "same, last job served": ("makespan", "drops_last_job", "none"),
}
"""How "throughput" may be read: the estimate, the setting it is read in, the marker's fill."""


def ablation(estimates: pd.DataFrame) -> Figure:
    """JCT reduction (%) of each setting (y): sweeps (rows) by batching mode (columns).

    A pale bar leads from the published protocol, all quirks on, to each setting.
    """
    gains = _of(estimates, "reduction")
    sweeps, modes = list(gains["sweep"].unique()), list(gains["mode"].unique())
    with style.context():
        fig, axes = facets(len(sweeps), len(modes), 8.4, sharex=True, sharey="row")
        for sweep, row in zip(sweeps, axes, strict=True):
            for mode, ax in zip(modes, row, strict=True):
                _settings(ax, gains[(gains["sweep"] == sweep) & (gains["mode"] == mode)])
            row[0].set_ylabel(sweep, fontsize=11, fontweight="bold")
        for ax, mode in zip(axes[0], modes, strict=True):
            ax.set_title(MODES[mode], fontsize=10)
        axes[0, 0].set_xlim(0, None)
        fig.supxlabel("reduction of FCFS's mean JCT (%), with the quirk named off", fontsize=10)
        legend(fig, axes[0, 0])
    return fig


def _of(estimates: pd.DataFrame, name: str) -> pd.DataFrame:
    """One estimate of the sweeps (the steady state has no change) as value, low, high."""
    names = {name: "value", f"{name}_low": "low", f"{name}_high": "high"}
    return estimates[estimates["change"].notna()].rename(columns=names)


def _settings(ax: Axes, gains: pd.DataFrame) -> None:
    settings = gains["quirks_off"].unique()
    rows = -np.arange(len(settings), dtype=float)
    for framed in (rows[0], rows[-1]):
        ax.axhspan(framed - 0.5, framed + 0.5, **FRAMED)
    for offset, series in zip(OFFSETS, gains["series"].unique(), strict=True):
        one = gains[gains["series"] == series].set_index("quirks_off").loc[settings]
        published, colour = one.loc[quirks.ALL_ON, "value"], style.look(series)["color"]
        ax.axvline(published, color=colour, lw=0.9, ls=":")
        ax.hlines(rows + offset, published, one["value"], color=colour, lw=3.5, alpha=0.45)
        dots(ax, one, rows + offset, markersize=4)
    ax.set_yticks(rows, [quirks.off(setting) for setting in settings])
    ax.grid(visible=False, axis="y")
    ax.set_ylim(rows[-1] - 0.6, 0.6)


def ablation_throughput(estimates: pd.DataFrame) -> Figure:
    """The factor over FCFS (log axis) by each way of reading: a facet per sweep."""
    sweeps = list(_of(estimates, "quarter")["sweep"].unique())
    with style.context():
        fig, axes = facets(1, len(sweeps), 3.4, sharey=True, sharex=True)
        for sweep, ax in zip(sweeps, axes[0], strict=True):
            _readings(ax, estimates[estimates["sweep"] == sweep])
            ax.set_title(sweep)
        fig.supxlabel("throughput over FCFS's (×, log axis)", fontsize=10)
        legend(fig, axes[0, 0], columns=2)
    return fig


def _readings(ax: Axes, estimates: pd.DataFrame) -> None:
    modes = estimates["mode"].unique()
    rows = -np.arange(len(modes), dtype=float)
    for offset, series in zip(OFFSETS, estimates["series"].unique(), strict=True):
        of_series = estimates[estimates["series"] == series]
        for reading, (name, setting, fill) in READINGS.items():
            one = _of(of_series[of_series["quirks_off"] == setting], name)
            label = f"{style.look(series)['label']}: {reading}"
            dots(ax, one, rows + offset, fillstyle=fill, label=label, markersize=6)
    ax.axvline(1, color="#666666", lw=0.8)
    ax.set_yticks(rows, [MODES[mode] for mode in modes])
    ax.set(xscale="log", ylim=(rows[-1] - 0.6, 0.6))
    ax.set_xticks([1, 2, 3, 4, 5], ["1", "2", "3", "4", "5"])
    ax.minorticks_off()
