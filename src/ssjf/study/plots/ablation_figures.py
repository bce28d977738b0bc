"""The quirk ablation drawn; frames as in ``ssjf.study.plots.ablation``."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssjf.study import style
from ssjf.study.plots import quirks
from ssjf.study.plots.ablation import READINGS, SETTING, throughputs
from ssjf.study.plots.common import MODES, dots, facets, legend
from ssjf.study.plots.estimates import against

OFFSETS = (0.18, -0.18)  # of two series on one row
FILLS = ("full", "left", "none")
FRAMED = {"color": "#eeeeee", "zorder": 0}


def ablation(runs: pd.DataFrame) -> Figure:
    """JCT reduction (%) of each setting (y): sweeps (rows) by batching mode (columns).

    A pale bar leads from the published protocol, all quirks on, to each setting.
    """
    sweeps, modes = list(runs["sweep"].unique()), list(runs["mode"].unique())
    gains = against(runs, SETTING)
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


def ablation_throughput(runs: pd.DataFrame) -> Figure:
    """The factor over FCFS (log axis) by each way of reading: a facet per sweep."""
    factors = throughputs(runs)
    sweeps = list(factors["sweep"].unique())
    with style.context():
        fig, axes = facets(1, len(sweeps), 3.4, sharey=True, sharex=True)
        for sweep, ax in zip(sweeps, axes[0], strict=True):
            _readings(ax, factors[factors["sweep"] == sweep])
            ax.set_title(sweep)
        fig.supxlabel("throughput over FCFS's (×, log axis)", fontsize=10)
        legend(fig, axes[0, 0], columns=2)
    return fig


def _readings(ax: Axes, factors: pd.DataFrame) -> None:
    modes = factors["mode"].unique()
    rows = -np.arange(len(modes), dtype=float)
    for offset, series in zip(OFFSETS, factors["series"].unique(), strict=True):
        for reading, fill in zip(READINGS, FILLS, strict=True):
            one = factors[(factors["series"] == series) & (factors["reading"] == reading)]
            label = f"{style.look(series)['label']}: {reading}"
            dots(ax, one, rows + offset, fillstyle=fill, label=label, markersize=6)
    ax.axvline(1, color="#666666", lw=0.8)
    ax.set_yticks(rows, [MODES[mode] for mode in modes])
    ax.set(xscale="log", ylim=(rows[-1] - 0.6, 0.6))
    ax.set_xticks([1, 2, 3, 4, 5], ["1", "2", "3", "4", "5"])
    ax.minorticks_off()
