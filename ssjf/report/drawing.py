"""Drawing shared by several notebooks: estimates for seaborn, figure layout, captions.

An estimate is a row with ``value``, ``low`` and ``high``, computed and seeded by
``ssjf.analysis``; seaborn draws it without resampling.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ssjf.experiments import paths
from ssjf.report import style

WIDTH_INCHES = 7.0
MODES = {
    "none": "no batching",
    "dynamic": "dynamic batching",
    "continuous": "continuous batching",
}
INTERVAL: dict[str, Any] = {"estimator": "median", "errorbar": ("pi", 100)}
"""Keywords by which seaborn draws ``long`` estimates: a line or dot, and its interval."""
DOTS: dict[str, Any] = INTERVAL | {
    "linestyle": "none",
    "markersize": 4,
    "err_kws": {"linewidth": 1.2},
}
"""The same for ``sns.pointplot`` and ``sns.catplot(kind="point")``."""
_BEFORE = {"rho": "ρ ", "slots": "slots "}  # printed before the value of a key


def long(estimates: pd.DataFrame) -> pd.DataFrame:
    """Melt each estimate into three rows: low, value and high end, all in column ``value``.

    With ``INTERVAL`` seaborn draws their median, the value, and their range, the interval. Raises
    ValueError where a value is outside its interval.
    """
    outside = (estimates["value"] < estimates["low"]) | (estimates["value"] > estimates["high"])
    if outside.any():
        raise ValueError(f"{outside.sum()} estimates are outside their interval")
    keys = [name for name in estimates if name not in ("value", "low", "high")]
    ends = ["value", "low", "high"]
    melted = estimates.melt(keys, ends, "end", "drawn").dropna(subset="drawn")
    return melted.rename(columns={"drawn": "value"}).drop(columns="end")


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """Replace modes and series by their labels; ``series`` becomes ``policy``."""
    if "mode" in frame:
        frame = frame.assign(mode=frame["mode"].map(MODES))
    if "series" in frame:
        labels = {series: style.look(series)["label"] for series in frame["series"].unique()}
        frame = frame.assign(series=frame["series"].map(labels))
    return frame.rename(columns={"series": "policy"})


def finish(
    grid: sns.FacetGrid | Figure,
    height_inches: float,
    titles: str | None = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
    columns: int = 4,
    also: Iterable[Line2D] = (),
) -> None:
    """Set a figure's size, facet titles and shared axis labels, and put one legend above it.

    ``titles`` is a seaborn template (``"{col_name}"``, only for grids); ``columns`` counts the
    legend's columns, ``also`` adds entries to it. A label that is given is shared by all facets.
    """
    fig = grid if isinstance(grid, Figure) else grid.figure
    fig.set_size_inches(WIDTH_INCHES, height_inches)
    fig.set_layout_engine("constrained")  # seaborn turns it off
    if titles is not None:
        grid.set_titles(titles)
        for ax in grid.axes[1:].flat if "row_name" not in titles and grid.row_names else ():
            ax.set_title("")
    if xlabel is not None:
        fig.supxlabel(xlabel, fontsize=10)
    if ylabel is not None:
        fig.supylabel(ylabel, fontsize=10)
    for ax in fig.axes:
        ax.set(**{"xlabel": ""} if xlabel else {}, **{"ylabel": ""} if ylabel else {})
    legend_above(grid, columns, also)


def legend_above(
    grid: sns.FacetGrid | Figure, columns: int = 4, also: Iterable[Line2D] = ()
) -> None:
    """Replace the legends that seaborn or matplotlib drew by one above all facets."""
    fig = grid if isinstance(grid, Figure) else grid.figure
    of_grid = [] if grid is fig else [grid.legend]
    entries: dict[str, Any] = {}
    for ax in fig.axes:
        if (legend := ax.get_legend()) is not None:
            handles, labels = ax.get_legend_handles_labels()
            entries |= dict(zip(labels, handles, strict=True))
            of_grid += [legend]
    for legend in filter(None, of_grid):
        labels = [text.get_text() for text in legend.get_texts()]
        entries = dict(zip(labels, legend.legend_handles, strict=True)) | entries
        if legend.axes is not None or legend in fig.legends:
            legend.remove()
    entries |= {handle.get_label(): handle for handle in also}
    if entries:
        place = {"loc": "outside upper center", "ncols": min(columns, len(entries))}
        fig.legend(entries.values(), entries.keys(), **place)


def points(
    ax: Axes,
    x: pd.DataFrame | pd.Series,
    y: pd.DataFrame | pd.Series,
    joined: bool = False,
    **look: Any,
) -> None:
    """Draw points at (x, y), with error bars along each axis that is a frame of estimates.

    A Series (or array) has no interval. ``look`` goes to ``Axes.errorbar``; a line joins the
    points if ``joined``.
    """
    at, bars = [], []
    for axis in (x, y):
        exact = not isinstance(axis, pd.DataFrame)
        at.append(axis if exact else axis["value"])
        both = None if exact else [axis["value"] - axis["low"], axis["high"] - axis["value"]]
        bars.append(both if both is None else np.abs(both))
    look |= {} if joined else {"linestyle": "none"}
    ax.errorbar(*at, xerr=bars[0], yerr=bars[1], elinewidth=1.2, **look)


def gantt(ax: Axes, arrived: Any, scheduled: Any, finished: Any, color: str) -> None:
    """Draw a bar per request in order of arrival (times in s), light while it waits."""
    rows = np.arange(len(arrived))
    bar: dict[str, Any] = {"color": color, "lw": max(0.8, 150 / max(len(rows), 1))}
    ax.hlines(rows, arrived, scheduled, alpha=0.22, **bar)
    ax.hlines(rows, scheduled, finished, **bar)
    ax.set(ylim=(len(rows), -1), xlim=(0, None))
    ax.grid(visible=False, axis="y")


def key(grey: str = "#444444", **marks: dict[str, Any]) -> list[Line2D]:
    """Make grey legend entries that explain markers and lines of any colour."""
    return [Line2D([], [], label=words, **{"color": grey, "ls": "none"} | look)
            for words, look in marks.items()]  # fmt: skip


def basis(runs: pd.DataFrame, by: str | list[str]) -> str:
    """Caption sentence: runs behind a point and the mean queue depth under FCFS.

    ``runs`` has a row per run: run_id, x, series, queue_depth_mean and the key(s) ``by``.
    """
    repeated = runs.groupby(["run_id", "x"]).size().max()
    return f"{repeated} runs a point; mean queue depth under FCFS: {depths(runs, by)}."


def depths(runs: pd.DataFrame, by: str | list[str]) -> str:
    """FCFS's mean queue depth (requests) at each value of the key(s), as text."""
    fcfs = runs[runs["series"] == "fcfs"]
    means = fcfs.groupby(by, sort=False)["queue_depth_mean"].mean()
    return ", ".join(f"{mean:.3g} ({_words(by, key)})" for key, mean in means.items())


def _words(by: str | list[str], key: Any) -> str:
    names: Iterable[str] = [by] if isinstance(by, str) else by
    values = [key] if isinstance(by, str) else key
    pairs = zip(names, values, strict=True)
    return ", ".join(f"{_BEFORE.get(name, '')}{MODES.get(value, value)}" for name, value in pairs)


def authors(name: str) -> pd.DataFrame:
    """Read numbers measured with the authors' code, from ``papers/NAME.csv``."""
    return pd.read_csv(paths.papers() / f"{name}.csv")
