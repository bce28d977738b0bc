"""Drift: a predictor whose LLM changes, or that knows one of two; with and without calibration.

Rows per run: x, seed, run, scenario, slots, workload, series (policy, or policy+calibration),
jct_mean and jct_mean_after in s, log_error_before and after, and log_error_00… by arrival.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssjf.study import bootstrap, style
from ssjf.study.bootstrap import Estimate
from ssjf.study.estimates import replicates
from ssjf.study.experiments import experiment
from ssjf.study.plots.common import facets

KEYS = ["scenario", "slots", "workload"]
SCENARIOS = {"shift": "the LLM changes", "tenants": "two LLMs share the queue"}
CALIBRATIONS = {
    "": ("#000000", "as predicted", "-"),
    "common": ("#E69F00", "one calibrator", "-"),
    "per-llm": ("#0072B2", "a calibrator per LLM", "--"),
    "own": ("#009E73", "a predictor per LLM", ":"),
}
POLICIES = {"ssjf": ("o", "SSJF"), "ssjf-aged": ("X", "SSJF, aged")}


def drift_estimates(runs: pd.DataFrame) -> pd.DataFrame:
    """Per cell and series: the reduction of FCFS's mean JCT, the share of the oracle's (%), and
    the reduction of the same policy's without calibration; each with its interval.

    After a shift the mean is over the requests from the shift on. ``p99`` is that of the whole
    run over FCFS's.
    """
    judged = runs.assign(
        jct=runs["jct_mean_after"].where(runs["scenario"] == "shift", runs["jct_mean"])
    )
    found: list[dict[str, Any]] = []
    for cell, part in judged.groupby(KEYS, sort=False):
        wide, tail = replicates(part, "jct"), replicates(part, "jct_p99")
        for series in part["series"].unique():
            if series != "fcfs":
                keys = dict(zip(KEYS, cell, strict=True)) | {"series": series}
                p99 = _named("p99", bootstrap.factor(tail["fcfs"], tail[series]))
                found.append(keys | _estimates(wide, series) | p99)
    return pd.DataFrame(found)


def _estimates(wide: pd.DataFrame, series: str) -> dict[str, float]:
    plain = series.partition("+")[0]
    share = bootstrap.captured(wide["fcfs"], wide[series], wide["sjf"])
    return (
        _named("reduction", bootstrap.reduction(wide["fcfs"], wide[series]))
        | _named("share", Estimate(*(100 * value for value in share)))
        | _named("against", bootstrap.reduction(wide[plain], wide[series]))
    )


def _named(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def drift_gain(estimates: pd.DataFrame) -> Figure:
    """The share of the oracle's gain: slots (rows) by scenario (columns), a group per two LLMs."""
    slots = list(estimates["slots"].unique())
    with style.context():
        fig, axes = facets(len(slots), len(SCENARIOS), 6.0, sharex=True, sharey=True)
        for row, number in zip(axes, slots, strict=True):
            for ax, scenario in zip(row, SCENARIOS, strict=True):
                at = (estimates["slots"] == number) & (estimates["scenario"] == scenario)
                _groups(ax, estimates[at])
            words = "1 slot" if number == 1 else f"{number} slots"
            row[0].set_ylabel(f"{words}\nshare of the oracle's gain (%)")
        for ax, words in zip(axes[0], SCENARIOS.values(), strict=True):
            ax.set_title(words)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside upper center", ncols=2)
    return fig


def _groups(ax: Axes, estimates: pd.DataFrame) -> None:
    workloads = list(estimates["workload"].unique())
    ax.axhline(0, color="#666666", lw=0.8)
    place = 0
    for policy, (marker, name) in POLICIES.items():
        for calibration, (colour, words, _) in CALIBRATIONS.items():
            series = f"{policy}+{calibration}".removesuffix("+")
            part = estimates[estimates["series"] == series]
            bars = [part["share"] - part["share_low"], part["share_high"] - part["share"]]
            at = np.arange(len(part)) + (place - 3.5) * 0.1
            look: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": "none"}
            label = f"{name}: {words}"
            ax.errorbar(at, part["share"], np.abs(bars), elinewidth=1.1, label=label, **look)
            place += 1
    names = [workload.replace(" → ", "\n→ ") for workload in workloads]
    ax.set_xticks(range(len(workloads)), names, fontsize=7.5)
    ax.set_xlim(-0.5, len(workloads) - 0.5)
    ax.grid(visible=False, axis="x")


def drift_course(runs: pd.DataFrame, name: str, slots: int = 1) -> Figure:
    """The error of the log length by arrival, around the request with which the LLM changes."""
    part = runs[(runs["scenario"] == "shift") & (runs["slots"] == slots)]
    workloads = list(part["workload"].unique())
    size = experiment(name).workload["requests"] // 400
    with style.context():
        fig, axes = facets(1, len(workloads), 3.2, sharey=True)
        for ax, workload in zip(axes[0], workloads, strict=True):
            _course(ax, part[part["workload"] == workload], size)
            ax.axvline(0, color="#666666", lw=0.9, ls=":")
            ax.set_title(workload.replace(" → ", "\n→ "), fontsize=9)
            ax.set_xlabel("requests since the change")
        axes[0, 0].set(ylabel="mean |log predicted − log true|", ylim=(0, None))
        handles, labels = axes[0, 0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside upper center", ncols=4)
    return fig


def _course(ax: Axes, runs: pd.DataFrame, size: int) -> None:
    columns = [name for name in runs if name.startswith("log_error_") and name[10:].isdigit()]
    at = (np.arange(len(columns)) - 10 + 0.5) * size
    for calibration, (colour, words, line) in CALIBRATIONS.items():
        part = runs[runs["series"] == f"ssjf+{calibration}".removesuffix("+")]
        value, low, high = np.array([bootstrap.interval(part[name]) for name in columns]).T
        ax.plot(at, value, color=colour, label=words, linestyle=line)
        ax.fill_between(at, low, high, color=colour, alpha=0.2, lw=0)


def drift_table(runs: pd.DataFrame, estimates: pd.DataFrame) -> pd.DataFrame:
    """``drift_estimates`` in words, with the error of the log length of either half."""
    errors = runs.groupby([*KEYS, "series"], sort=False)[["log_error_before", "log_error_after"]]
    table = estimates.merge(errors.mean().reset_index(), on=[*KEYS, "series"])
    policy, _, calibration = table["series"].str.partition("+").to_numpy().T
    words = {name: label for name, (_, label) in POLICIES.items()} | {"sjf": "SJF (oracle)"}
    table.insert(3, "policy", [words[name] for name in policy])
    lengths = [CALIBRATIONS[each][1] for each in calibration]
    table.insert(4, "lengths", np.where(policy == "sjf", "true", lengths))
    renamed = {
        "workload": "LLMs", "reduction": "mean JCT reduction (%)", "reduction_low": "low (%)",
        "reduction_high": "high (%)", "share": "share of the oracle's gain (%)",
        "share_low": "share low (%)", "share_high": "share high (%)",
        "against": "mean JCT reduction against as predicted (%)", "against_low": "against low (%)",
        "against_high": "against high (%)", "p99": "p99 JCT over FCFS's", "p99_low": "p99 low",
        "p99_high": "p99 high", "log_error_before": "log error, first half",
        "log_error_after": "log error, second half",
    }  # fmt: skip
    return table.drop(columns="series").rename(columns=renamed)
