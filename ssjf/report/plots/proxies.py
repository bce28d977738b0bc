"""Every proxy on the same prompts: quality, cost, and what it is worth in a queue.

``runs`` are rows per prompt of experiment proxies; ``gain`` rows per run of experiment gain;
``cost`` rows per measurement of experiment proxy-cost.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssjf.analysis.estimates import against
from ssjf.analysis.predictions import judged
from ssjf.experiments.draws import draw, to_requests
from ssjf.experiments.grid import experiment
from ssjf.report import style
from ssjf.report.plots.common import facets, with_bars
from ssjf.report.plots.quality import agreement, captured

QUALITY = ("spearman", "spearman_of_mean", "kendall_tau_b", "pairs_2x", "mae", "coverage_80")
BESIDE = {  # where a word stands beside its point, in points of print, where several meet
    "encoder": ((-9, -4), "right"),
    "encoder-frozen": ((-9, -4), "right"),
    "light": ((0, -15), "center"),
    "retrieval-tuned": ((4, 9), "center"),
    "retrieval": ((6, -17), "center"),
}
AT = "slots == 1 and rho == 0.9"


def shares_of(gain: pd.DataFrame) -> pd.DataFrame:
    """The share of the oracle's gain (%) of every series: slots, rho, series, value, low, high."""
    others = [series for series in gain["series"].unique() if series != "fcfs"]
    return captured(gain, pd.DataFrame({"series": others}))


def proxies_quality(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per proxy: measures with their 95 % intervals, as text."""
    table = with_bars(judged(runs, metrics=QUALITY), QUALITY)
    names = [style.proxy_look(series)["label"] for series in table["series"]]
    return table.assign(proxy=names).set_index("proxy").drop(columns="series")


def choice(runs: pd.DataFrame, gain: pd.DataFrame, cost: pd.DataFrame) -> pd.DataFrame:
    """Which proxy to choose: quality, cost, share of the oracle's gain and what the tail pays."""
    found = judged(runs, metrics=["spearman", "kendall_tau_b"]).set_index("series")
    ranks = found[found["metric"] == "spearman"]
    taus = found[found["metric"] == "kendall_tau_b"]["value"]
    shares = shares_of(gain).query(AT).set_index("series")
    tails = against(gain, ["slots", "rho"], "jct_p99").query(AT).set_index("series")
    times = cost.query("batch == 1").pivot_table(
        "ms_per_prompt", "series", "prompt_tokens", "first"
    )
    memory = cost.groupby("series")["rss_mb"].max()
    rows = []
    for series in runs["series"].unique():
        share = shares.loc[f"proxy:{series}"]
        rank = ranks.loc[series]
        rows.append(
            {
                "proxy": style.proxy_look(series)["label"],
                "Spearman's ρ": f"{rank['value']:.3f} [{rank['low']:.3f}, {rank['high']:.3f}]",
                "Kendall's τ-b": taus[series],
                "ms, 64 tokens": times.loc[series, 64],
                "ms, 256 tokens": times.loc[series, 256],
                "memory (MB)": round(memory[series]),
                "share of the oracle's gain (%)": f"{share['value']:.1f} [{share['low']:.1f}, "
                f"{share['high']:.1f}]",
                "p99 JCT reduction (%)": tails.loc[f"proxy:{series}", "value"],
            }
        )
    return pd.DataFrame(rows)


def quality_gain(gain: pd.DataFrame, name: str) -> Figure:
    """Share of the oracle's gain over Kendall's tau-b: proxies and heads on the curve of noise."""
    found = captured(gain, agreement(name))
    with style.context():
        fig, axes = facets(1, 2, 4.2, sharey=True)
        for ax, slots in zip(axes[0], (1, 8), strict=True):
            part = found.query("slots == @slots and rho == 0.9")
            _curve(ax, part[part["series"].str.startswith("tau:")])
            _points(ax, part[~part["series"].str.startswith("tau:")], label=slots == 1)
            ax.set(xlabel="Kendall's τ-b with the true length", ylim=(-6, 104))
            ax.set_title(f"{slots} slot{'s' * (slots > 1)}, ρ 0.9")
        axes[0, 0].set_ylabel("share of the oracle's gain (%)")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside lower center", ncols=3)
    return fig


def _curve(ax: Axes, part: pd.DataFrame) -> None:
    look: dict[str, Any] = style.look("tau:0.5") | {"label": "true length with noise"}
    ordered = part.sort_values("tau")
    ax.plot(ordered["tau"], ordered["value"], **look | {"markersize": 3, "linewidth": 1.0})


def _points(ax: Axes, part: pd.DataFrame, label: bool) -> None:
    seen = set()
    for row in part.itertuples():
        if row.series == "sjf":
            ax.plot(row.tau, row.value, **style.look("sjf") | {"linestyle": "none"})
            continue
        look = style.proxy_look(row.series)
        head = row.series.startswith("head:")
        words = "heads of MiniLM" if head else look["label"]
        bars = [[row.value - row.low], [row.high - row.value]]
        ax.errorbar(
            row.tau, row.value, np.abs(bars), color=look["color"], marker=look["marker"],
            markersize=4 if head else 6, linestyle="none", elinewidth=1,
            label=None if words in seen else words, zorder=2 if head else 3,
        )  # fmt: skip
        seen.add(words)


def frontier(gain: pd.DataFrame, cost: pd.DataFrame) -> Figure:
    """What a proxy costs (ms for a prompt of 64 tokens) against the gain that it captures."""
    shares = shares_of(gain).query(AT).set_index("series")
    times = cost.query("batch == 1 and prompt_tokens == 64").set_index("series")["ms_per_prompt"]
    with style.context():
        fig, axes = facets(1, 1, 3.4)
        ax = axes[0, 0]
        for series, milliseconds in times.items():
            look = style.proxy_look(str(series))
            row = shares.loc[f"proxy:{series}"]
            bars = np.abs([[row["value"] - row["low"]], [row["high"] - row["value"]]])
            ax.errorbar(milliseconds, row["value"], bars, color=look["color"], markersize=7,
                        marker=look["marker"], linestyle="none")  # fmt: skip
            aside, side = BESIDE.get(str(series), ((8, 4), "left"))
            ax.annotate(look["label"], (milliseconds, row["value"]), xytext=aside, ha=side,
                        textcoords="offset points", fontsize=9)  # fmt: skip
        ax.set(xscale="log", xlabel="milliseconds for a prompt of 64 tokens (one CPU thread)")
        ax.set(ylabel="share of the oracle's gain (%)", ylim=(-6, 100))
        ax.margins(x=0.25)
    return fig


def overhead(cost: pd.DataFrame, name: str) -> Figure:
    """Densities of the time a prediction takes and of the time the LLM takes, real prompts."""
    pool = to_requests(draw(experiment(name).workload["pool"]))
    llm = 1e3 * (0.1 + 0.02 * pool.output_tokens)
    with style.context():
        fig, axes = facets(1, 1, 3.2)
        ax = axes[0, 0]
        for series in cost["series"].unique():
            look = style.proxy_look(series)
            _density(ax, cost[cost["series"] == series]["latency_ms"], look["color"], look["label"])
        _density(ax, llm, style.look("sjf")["color"], "LLM (0.1 s + 0.02 s a token)")
        ax.set(xscale="log", xlabel="time per request (ms)", ylabel="density per decade")
        fig.legend(loc="outside upper center", ncols=3)
    return fig


def _density(ax: Axes, milliseconds: Any, colour: str, label: str) -> None:
    """A kernel density of the logarithm; cut off the slowest thousandth, which are hiccups."""
    from scipy.stats import gaussian_kde

    logs = np.log10(np.asarray(milliseconds, np.float64))
    if np.ptp(logs) == 0:
        return
    at = np.linspace(logs.min() - 0.1, np.quantile(logs, 0.999) + 0.1, 300)
    ax.fill_between(10**at, gaussian_kde(logs)(at), color=colour, alpha=0.25, lw=0)
    ax.plot(10**at, gaussian_kde(logs)(at), color=colour, lw=1.2, label=label)
