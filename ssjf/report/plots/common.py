"""What all figures share: facets, lines with bands, dots with bars, legends, captions."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssjf.analysis.predictions import WORDS
from ssjf.experiments import paths
from ssjf.report import style

WIDTH_INCHES = 7.0
MODES = {
    "none": "no batching",
    "dynamic": "dynamic batching",
    "continuous": "continuous batching",
}
WHAT = {
    "jct_mean": "mean JCT (s)",
    "jct_p99": "p99 JCT (s)",
    "throughput_25": "25 %-throughput (1/s)",
    "completed_per_second": "requests per s of makespan (1/s)",
}
BEFORE = {"rho": "ρ ", "slots": "slots "}  # what stands before the value of a key


def facets(rows: int, columns: int, height: float, **shared: Any) -> tuple[Figure, np.ndarray]:
    """A figure of the house's width and its axes, shape (rows, columns).

    The figure is not pyplot's: a notebook shows it once, where it is named. To be called
    inside ``style.context()``.
    """
    import matplotlib.pyplot as plt  # its inline backend is what shows figures in a notebook

    size = (WIDTH_INCHES, height)
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, **shared)
    plt.close(fig)
    return fig, axes


def lines(ax: Axes, estimates: pd.DataFrame, x: str = "x") -> None:
    """One line and its band per series; columns ``x``, series, value, low, high."""
    for series in estimates["series"].unique():
        part = estimates[estimates["series"] == series].sort_values(x)
        look: dict[str, Any] = style.look(series)
        ax.plot(part[x], part["value"], **look)
        ax.fill_between(part[x], part["low"], part["high"], color=look["color"], alpha=0.2, lw=0)


def dots(ax: Axes, estimates: pd.DataFrame, at: np.ndarray, **overrides: Any) -> None:
    """Horizontal dots with bars at heights ``at``, all of one series; no line between."""
    look = style.look(estimates["series"].iloc[0]) | {"linestyle": "none"} | overrides
    value = estimates["value"].to_numpy()
    bars = [value - estimates["low"], estimates["high"] - value]
    ax.errorbar(value, at, xerr=np.abs(bars), elinewidth=1.2, **look)


def legend(fig: Figure, ax: Axes, columns: int = 4) -> None:
    """One legend for all facets, above them, with the labels of one of the axes."""
    handles, labels = ax.get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=min(columns, len(labels)))


def basis(runs: pd.DataFrame, by: str | list[str]) -> str:
    """Runs behind a point and the mean queue depth under FCFS, as a sentence of a caption.

    ``runs`` has a row per run: run_id, x, series, queue_depth_mean and the key(s) ``by``.
    """
    repeated = runs.groupby(["run_id", "x"]).size().max()
    return f"{repeated} runs a point; mean queue depth under FCFS: {depths(runs, by)}."


def depths(runs: pd.DataFrame, by: str | list[str]) -> str:
    """FCFS's mean queue depth (requests) at each value of the key(s), in words."""
    fcfs = runs[runs["series"] == "fcfs"]
    means = fcfs.groupby(by, sort=False)["queue_depth_mean"].mean()
    return ", ".join(f"{mean:.3g} ({_words(by, key)})" for key, mean in means.items())


def _words(by: str | list[str], key: Any) -> str:
    names, values = ([by], [key]) if isinstance(by, str) else (by, key)
    pairs = zip(names, values, strict=True)
    return ", ".join(f"{BEFORE.get(name, '')}{MODES.get(value, value)}" for name, value in pairs)


def authors(name: str) -> pd.DataFrame:
    """Numbers measured from the authors' code, from ``papers/NAME.csv``."""
    return pd.read_csv(paths.papers() / f"{name}.csv")


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """Modes and series of a table in words; ``series`` becomes ``policy``."""
    words = {"mode": MODES, "series": style.labels(frame["series"].unique())}
    found = {key: frame[key].map(words[key]) for key in words if key in frame}
    return frame.assign(**found).rename(columns={"series": "policy"})


def with_bars(found: pd.DataFrame, metrics: tuple[str, ...]) -> pd.DataFrame:
    """What ``judged`` found as one row per series and one column per measure: value [low, high]."""
    kept = found[found["metric"].isin(metrics)]
    cells = kept.assign(text=[f"{v:.3g} [{a:.3g}, {b:.3g}]" for v, a, b in
                              kept[["value", "low", "high"]].itertuples(index=False)])  # fmt: skip
    wide = cells.pivot_table("text", "series", "metric", "first", sort=False)
    return wide[list(metrics)].rename(columns=WORDS).reset_index()
