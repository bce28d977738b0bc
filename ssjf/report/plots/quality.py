"""How good a predictor must be, steady state.

Rows per run: x, seed, run, slots, rho, series, jct_mean in s. Agreement with the true lengths
is Kendall's tau-b.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssjf.analysis import bootstrap
from ssjf.analysis.estimates import replicates
from ssjf.experiments.draws import draw, to_requests
from ssjf.experiments.grid import experiment
from ssjf.proxy import predict
from ssjf.report import style
from ssjf.report.plots.common import facets, legend, named
from ssjf.report.plots.tail import KEYS, _cells


def agreement(name: str) -> pd.DataFrame:
    """Kendall's tau-b of each predictor of an experiment with the truth, on its length pool.

    Columns series, tau.
    """
    from scipy.stats import kendalltau

    asked = experiment(name)
    pool = to_requests(draw(asked.workload["pool"]))
    found = []
    for series in asked.series:
        if "predictor" in series:
            guess = predict(series["predictor"], pool, np.random.default_rng(0))
            tau = kendalltau(guess, pool.output_tokens, method="asymptotic").statistic
            found.append({"series": series["series"], "tau": tau})
    return pd.DataFrame([*found, {"series": "sjf", "tau": 1.0}])


def captured(runs: pd.DataFrame, taus: pd.DataFrame) -> pd.DataFrame:
    """The share of the oracle's gain that each predictor has (%).

    Columns slots, rho, series, tau, value, low, high; ``taus`` has columns series, tau.
    """
    found = []
    for (slots, rho), part in runs.groupby(KEYS, sort=False):
        wide = replicates(part, "jct_mean")
        for series in taus["series"]:
            share = bootstrap.captured(wide["fcfs"], wide[series], wide["sjf"])
            percent = {key: 100 * value for key, value in share._asdict().items()}
            found.append({"slots": slots, "rho": rho, "series": series} | percent)
    return pd.DataFrame(found).merge(taus, on="series")


def predictor_quality(shares: pd.DataFrame) -> Figure:
    """The share captured (%) over Kendall's tau-b: slots (rows) by utilisation (columns).

    ``shares`` is what ``captured`` returns; tau:* and noise:* are joined to lines.
    """
    with style.context():
        size = shares["slots"].nunique(), shares["rho"].nunique()
        fig, axes = facets(*size, 5.6, sharex=True, sharey=True)
        for ax, part in _cells(shares, axes):
            _share(ax, part)
        fig.supxlabel("agreement of predicted with true lengths (Kendall's τ-b)", fontsize=10)
        fig.supylabel("share of the oracle's gain (%)", fontsize=10)
        legend(fig, axes[0, 0], columns=2)
    return fig


def _share(ax: Axes, shares: pd.DataFrame) -> None:
    ax.axhline(0, color="#666666", lw=0.8)
    ax.plot([0, 1], [0, 100], color="#bbbbbb", lw=0.9, zorder=1)
    kind = shares["series"].str.partition(":")[0]
    for name in kind.unique():
        part = shares[kind == name].sort_values("tau")
        look: dict[str, Any] = style.look(name)
        bars = np.abs([part["value"] - part["low"], part["high"] - part["value"]])
        if len(part) == 1:
            look |= {"linestyle": "none", "markersize": 7, "zorder": 3}
        ax.errorbar(part["tau"], part["value"], bars, elinewidth=1.2, **look)


def quality_table(shares: pd.DataFrame) -> pd.DataFrame:
    """``captured`` in words, by agreement."""
    words = {"tau": "Kendall's τ-b", "value": "share of the oracle's gain (%)", "low": "low (%)",
             "high": "high (%)", "rho": "ρ"}  # fmt: skip
    table = shares.sort_values([*KEYS, "tau"], ignore_index=True)
    return named(table.assign(predictor=table["series"])).rename(columns=words)
