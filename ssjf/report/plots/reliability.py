"""Are predicted distributions right? Levels against observed shares, coverage by band.

``runs`` are rows per prompt of a training experiment, with the quantiles ``q0.05``….
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssjf.analysis.intervals import resampled
from ssjf.analysis.predictions import HIGH, LOW
from ssjf.report import style
from ssjf.report.plots.common import facets

RESAMPLES = 500
BANDS = 5


def coverage_by_band(runs: pd.DataFrame, series: list[str]) -> pd.DataFrame:
    """Coverage of the 80 % interval over all prompts, by band of predicted and of true length.

    Bands are fifths of the test prompts. Columns proxy, by, band (1 is shortest), n, from and to
    (tokens), coverage, low, high: 95 % bootstrap intervals over prompts.
    """
    parts = []
    for name in series:
        part = runs[runs["series"] == name].reset_index(drop=True)
        parts += [row | {"proxy": style.proxy_look(name)["label"]} for row in _bands(part)]
    first = ["proxy", "by", "band", "n", "from (tokens)", "to (tokens)"]
    return pd.DataFrame(parts)[[*first, "coverage", "low", "high"]]


def _bands(part: pd.DataFrame) -> list[dict]:
    found = [_covered(part, "all prompts", 0, part["output_tokens"])]
    for by, column in (("predicted length", "predicted_tokens"), ("true length", "output_tokens")):
        edges = np.quantile(part[column], np.arange(1, BANDS) / BANDS)
        band = np.searchsorted(edges, part[column], side="right")
        for k in range(BANDS):
            if (band == k).any():
                rows = part[band == k]
                found.append(_covered(rows, by, k + 1, rows[column]))
    return found


def _covered(rows: pd.DataFrame, by: str, band: int, lengths: pd.Series) -> dict:
    inside = rows["output_tokens"].between(rows[LOW], rows[HIGH]).to_numpy()
    frame = resampled(lambda at: {"c": inside[at].mean()}, len(rows), resamples=RESAMPLES)
    value, low, high = frame.loc[0, ["value", "low", "high"]]
    return {
        "by": by, "band": band, "n": len(rows), "from (tokens)": float(lengths.min()),
        "to (tokens)": float(lengths.max()), "coverage": value, "low": low, "high": high,
    }  # fmt: skip


def reliability(runs: pd.DataFrame, series: list[str]) -> Figure:
    """Left: share of true lengths below each predicted quantile. Right: coverage by band."""
    bands = coverage_by_band(runs, series)
    with style.context():
        fig, axes = facets(1, 2, 3.7)
        left, right = axes[0]
        left.plot([0, 1], [0, 1], color="#666666", lw=0.9)
        right.axhspan(0.7, 0.9, color="#eeeeee", zorder=0)
        right.axhline(0.8, color="#666666", lw=0.9)
        for i, name in enumerate(series):
            look = style.proxy_look(name)
            _levels(left, runs[runs["series"] == name], look)
            _by_band(right, bands[bands["proxy"] == look["label"]], look, 0.12 * (i - 1))
        left.set(xlabel="level of the predicted quantile", ylabel="share of true lengths below it")
        right.set(xlabel="band of predicted length (1 is shortest)", ylim=(0.5, 1))
        right.set_ylabel("coverage of the 80 % interval")
        handles, labels = left.get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside upper center", ncols=3)
    return fig


def _levels(ax: Axes, part: pd.DataFrame, look: dict[str, str]) -> None:
    names = [name for name in part if str(name).startswith("q0.")]
    below = [(part["output_tokens"] <= part[name]).mean() for name in names]
    ax.plot([float(name[1:]) for name in names], below, linestyle="none", markersize=6, **look)


def _by_band(ax: Axes, bands: pd.DataFrame, look: dict[str, str], aside: float) -> None:
    part = bands[bands["by"] == "predicted length"]
    bars = np.abs([part["coverage"] - part["low"], part["high"] - part["coverage"]])
    ax.errorbar(part["band"] + aside, part["coverage"], bars, linestyle="none", markersize=5,
                elinewidth=1, color=look["color"], marker=look["marker"])  # fmt: skip
