"""Policies measured on vLLM, beside the simulator's word on the same requests.

Rows per run and seed as ``study.measured.runs`` gives them; times in s.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from ssjf.experiments import fidelity as measured
from ssjf.harness.deployment import deployment
from ssjf.report import style
from ssjf.report.plots.common import facets

ENGINES = {"vllm": "measured", "simulator": "simulated"}
_GREY = "#444444"


def look(series: str) -> dict[str, Any]:
    """The look of a policy, or of a proxy's (``proxy:NAME``)."""
    return style.proxy_look(series) if series.startswith("proxy:") else dict(style.look(series))


def vllm_gain(runs: pd.DataFrame) -> Figure:
    """Reduction (%) of FCFS's mean and p99 JCT over ρ.

    Dots: measured. Lines: simulated.
    """
    found = measured.gains(runs, ["rho"])
    with style.context():
        fig, axes = facets(1, 2, 3.7)
        for ax, (metric, words) in zip(axes[0], measured.REDUCTIONS.items(), strict=True):
            part = found[found["metric"] == metric]
            for i, series in enumerate(part["series"].unique()):
                _curve(ax, part[part["series"] == series], look(series), 0.008 * (i - 1.5))
            ax.axhline(0, color=_GREY, lw=0.8)
            ax.set(xlabel="utilisation ρ", title=words, xticks=sorted(part["rho"].unique()))
        axes[0, 0].set_ylabel("reduction under FCFS's (%)")
        fig.legend(handles=_handles(found["series"].unique()), loc="outside upper center", ncols=3)
    return fig


def _curve(ax: Axes, part: pd.DataFrame, looks: dict[str, Any], aside: float) -> None:
    simulated, real = (part[part["engine"] == engine] for engine in ("simulator", "vllm"))
    ax.plot(simulated["rho"], simulated["value"], color=looks["color"], lw=1.4)
    bars = np.abs([real["value"] - real["low"], real["high"] - real["value"]])
    ax.errorbar(real["rho"] + aside, real["value"], yerr=bars, color=looks["color"],
                marker=looks["marker"], linestyle="none", elinewidth=1.2)  # fmt: skip


def _handles(series: Sequence[str]) -> list[Line2D]:
    found = [
        Line2D([], [], color=each["color"], marker=each["marker"], ls="none", label=each["label"])
        for each in map(look, series)
    ]
    mark: dict[str, Any] = {"color": _GREY, "markersize": 4}
    return [
        *found,
        Line2D([], [], marker="o", ls="none", label="dots: vLLM", **mark),
        Line2D([], [], lw=1.4, label="lines: simulated", **mark),
    ]


def vllm_conditions(runs: pd.DataFrame) -> Figure:
    """Reduction (%) of FCFS's mean JCT: a row per policy under a condition.

    Filled: measured. Hollow: simulated.
    """
    found = measured.gains(runs.assign(condition=_conditions(runs)), ["condition"])
    found = found[found["metric"] == "jct_mean"]
    rows = found[["condition", "series"]].drop_duplicates().reset_index(drop=True)
    with style.context():
        fig, axes = facets(1, 1, 0.9 + 0.24 * len(rows))
        ax = axes[0, 0]
        for at, (condition, series) in enumerate(rows.itertuples(index=False)):
            here = found[(found["condition"] == condition) & (found["series"] == series)]
            _dots(ax, here, at, look(series))
        first = ~rows["condition"].duplicated()
        for at in np.flatnonzero(first)[1:]:
            ax.axhline(at - 0.5, color="#999999", lw=0.6)
        labels = [
            f"{condition}:  {look(series)['label']}" if begins else look(series)["label"]
            for (condition, series), begins in zip(rows.to_numpy(), first, strict=True)
        ]
        ax.set_yticks(range(len(rows)), labels)
        ax.axvline(0, color=_GREY, lw=0.8)
        ax.set(ylim=(len(rows) - 0.5, -0.5), xlabel="reduction under FCFS's mean JCT (%)")
        ax.grid(visible=False, axis="y")
        dot = {"color": _GREY, "marker": "o", "ls": "none"}
        handles = [Line2D([], [], label="vLLM", **dot),
                   Line2D([], [], label="simulated", mfc="white", **dot)]  # fmt: skip
        fig.legend(handles=handles, loc="outside upper center", ncols=2)
    return fig


def _dots(ax: Axes, here: pd.DataFrame, at: int, looks: dict[str, Any]) -> None:
    for engine, offset, fill in (("vllm", -0.14, looks["color"]), ("simulator", 0.14, "white")):
        part = here[here["engine"] == engine]
        bars = np.abs([part["value"] - part["low"], part["high"] - part["value"]])
        ax.errorbar(part["value"], [at + offset], xerr=bars, color=looks["color"], mfc=fill,
                    marker=looks["marker"], linestyle="none", elinewidth=1.1)  # fmt: skip


def _conditions(runs: pd.DataFrame) -> pd.Series:
    """What sets a run apart, in words."""
    words = runs["slots"].map("{:.0f} slots".format)
    words = words.where(runs["workload"] == "Poisson", runs["workload"])
    words = words.where(runs["experiment"] != "vllm-predictors", words + ", predictors")
    return words.where(runs["experiment"] != "vllm-kv", words + ", short KV memory")


def vllm_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Reduction (%) of FCFS's mean and p99 JCT with 95 % intervals: measured, and simulated."""
    found = measured.gains(runs.assign(condition=_conditions(runs)), ["condition", "rho"])
    found["cell"] = [f"{v:.1f} [{a:.1f}, {b:.1f}]" for v, a, b in
                     found[["value", "low", "high"]].itertuples(index=False)]  # fmt: skip
    found["column"] = [
        f"{measured.REDUCTIONS[metric]}, {ENGINES[engine]} (%)"
        for metric, engine in found[["metric", "engine"]].itertuples(index=False)
    ]
    keys = ["condition", "rho", "series"]
    wide = found.pivot_table("cell", keys, "column", "first", sort=False).reset_index()
    wide["series"] = wide["series"].map(lambda series: look(series)["label"])
    return wide.rename(columns={"rho": "ρ", "series": "policy"})


def fidelity(paired: pd.DataFrame, equal: pd.DataFrame) -> Figure:
    """Simulated over measured mean and p99 JCT (s), a dot per run; the diagonal is equality.

    Hollow and grey: ``measured.pairs``, the profile as it is. In colour, by policy:
    ``measured.at_equal_speed``.
    """
    with style.context():
        fig, axes = facets(1, 2, 3.9)
        for ax, (metric, words) in zip(axes[0], measured.REDUCTIONS.items(), strict=True):
            plain, part = (found[found["metric"] == metric] for found in (paired, equal))
            ax.scatter(plain["measured"], plain["simulated"], s=14, color="none", ec="#999999",
                       lw=0.7)  # fmt: skip
            for series in part["series"].unique():
                one, looks = part[part["series"] == series], look(series)
                ax.scatter(one["measured"], one["simulated"], s=18, lw=0, color=looks["color"],
                           marker=looks["marker"])  # fmt: skip
            ends = pd.concat([plain, part])[["measured", "simulated"]].to_numpy()
            line = np.array([ends.min() / 1.2, ends.max() * 1.2])
            ax.fill_between(line, line * 0.9, line * 1.1, color="#e4e4e4", lw=0, zorder=0)
            ax.plot(line, line, color=_GREY, lw=0.8)
            ax.set(xscale="log", yscale="log", xlabel=f"{words} on vLLM (s)", xlim=line, ylim=line)
            _plain_ticks(ax, line)
            ax.set_aspect("equal")
        axes[0, 0].set_ylabel("the same simulated (s)")
        grey = {"color": "none", "marker": "o", "mec": "#999999", "ls": "none"}
        labels = [Line2D([], [], label="profile as it is", **grey)] + [
            Line2D([], [], color=(each := look(series))["color"], marker=each["marker"], ls="none",
                   label=each["label"])
            for series in equal["series"].unique()
        ]  # fmt: skip
        fig.legend(handles=labels, loc="outside upper center", ncols=4)
    return fig


def _plain_ticks(ax: Axes, ends: np.ndarray) -> None:
    """1, 2 and 5 of every decade between the ends, in plain numbers, on both axes."""
    ticks = [m * 10.0**e for e in range(-3, 4) for m in (1, 2, 5)]
    ticks = [tick for tick in ticks if ends[0] <= tick <= ends[1]]
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def fidelity_table(paired: pd.DataFrame, equal: pd.DataFrame) -> pd.DataFrame:
    """Errors of the simulator by experiment and over all, mean and p99 JCT."""
    tables = []
    for words, found in (("as it is", paired), ("at the run's speed", equal)):
        everything = measured.errors(found.assign(experiment="all"), ["experiment"])
        table = pd.concat([measured.errors(found, ["experiment"]), everything])
        tables.append(table.assign(profile=words))
    table = pd.concat(tables, ignore_index=True)
    return table.assign(metric=table["metric"].map(measured.REDUCTIONS))


def fidelity_verdict(equal: pd.DataFrame) -> str:
    """The median errors against what was aimed at (5 % of the mean, 10 % of the p99), in words."""
    found = measured.errors(equal, []).set_index("metric")["median |error| of a run (%)"]
    speeds = equal["speed"].quantile([0.05, 0.95])
    said = [
        f"{words} {found[metric]:.1f} % ({'within' if found[metric] <= goal else 'beyond'} "
        f"{goal} %)"
        for (metric, words), goal in zip(measured.REDUCTIONS.items(), (5, 10), strict=True)
    ]
    return (
        f"Median error of a run at equal speed: {', '.join(said)}. The machine ran at "
        f"{speeds.iloc[0]:.2f} to {speeds.iloc[1]:.2f} of the profile's step times (5th to 95th "
        "percentile of runs)."
    )


def step_times(recorded: pd.DataFrame, profile: Any) -> Figure:
    """Recorded decode steps (ms) over the batch, and what the fitted profile says of them."""
    decode = recorded[recorded["prefill_tokens"] == 0]
    duration = 1e3 * (decode["ended_at"] - decode["started_at"])
    fitted = 1e3 * (
        profile.step_seconds
        + profile.per_sequence_seconds * decode["sequences"]
        + profile.per_context_token_seconds * decode["context_tokens"]
    )
    with style.context():
        fig, axes = facets(1, 1, 3.2)
        ax = axes[0, 0]
        ax.scatter(decode["sequences"], duration, s=6, alpha=0.35, lw=0, color="#0072B2",
                   label="a recorded step")  # fmt: skip
        ax.scatter(decode["sequences"], fitted, s=6, lw=0, color="#D55E00", label="the profile")
        ax.set(xlabel="requests in the step", ylabel="step time (ms)")
        ax.set_ylim(0, 1.6 * float(np.quantile(duration, 0.98)))
        ax.legend(loc="upper left")
    return fig


def vllm_devices(deployments: Sequence[str]) -> pd.DataFrame:
    """What was measured on each deployment, and with which command what was not."""
    return pd.DataFrame([_device(name) for name in deployments])


def _device(name: str) -> dict[str, Any]:
    experiment = "vllm-gpu" if name.startswith("gpu-") else "vllm-gain"
    command = f"ssjf calibrate {name} && ssjf run {experiment} --profile {name}"
    of = deployment(name)
    row = {"deployment": name, "model": of.shape, "command": command}
    if not measured.exist(experiment, name):
        return row | {"measured": "not attempted: no run is committed", "hardware": ""}
    return row | {"measured": f"{experiment}: yes", "hardware": measured.hardware(experiment, name)}
