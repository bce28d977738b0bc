"""The quirk ablation: how much each quirk of the published simulation changes its results.

Rows per run: x, seed, run, mode, quirks_off, series, metrics in s and 1/s. Runs with and
without a quirk share jobs (and seeds), so changes are paired, replicate by replicate.
"""

import pandas as pd

from ssjf.analysis.estimates import against, changed, replicates

ALL_ON = ""
ALL_OFF = "+"  # in every setting of several names
SETTING = ["sweep", "mode", "quirks_off"]
KEYS = [*SETTING, "series"]
FACTORS = {"quarter": "throughput_25", "makespan": "completed_per_second"}
"""Two readings of "throughput": the published one, and requests per makespan."""

WORDS = {
    "whole_second_arrivals": (
        "arrivals at whole seconds",
        "arrivals are uniform within their second",
    ),
    "sorted_gaps": ("gaps sorted, shortest first", "gaps stay in the order drawn"),
    "milliseconds_as_seconds": (
        "Azure ms read as s",
        "trace times are milliseconds, a load 1,000 times higher",
    ),
    "fcfs_waits_to_fill": (
        "FCFS idles to fill a batch",
        "FCFS starts at once, as SJF and SSJF do",
    ),
    "drops_last_job": ("SJF, SSJF drop the last job", "every job is served"),
    "free_preemption": ("preemption costs nothing", "a job that runs keeps its slot"),
    "joins_on_completion_only": (
        "free slots wait for a completion",
        "an arrival takes a free slot at once",
    ),
    "starvation_guard": ("starvation guard", "the order is never turned into FCFS"),
    "guard_reads_truth": (
        "guard reads true lengths",
        "the guard reads the mean length of the predicted class",
    ),
    "drifting_clock": ("clock drifts by rounding", "time is exact"),
}
"""quirk: what it is, and what happens without it."""


def off(quirks_off: str) -> str:
    """Label of a setting (names joined by +)."""
    if quirks_off == ALL_ON:
        return "as published"
    return "without any quirk" if ALL_OFF in quirks_off else WORDS[quirks_off][0]


def mended(quirks_off: str) -> str:
    """Describe what happens without the quirks of a setting."""
    if quirks_off == ALL_ON:
        return "nothing"
    return "all of them" if ALL_OFF in quirks_off else WORDS[quirks_off][1]


def estimates(runs: pd.DataFrame, steady: pd.DataFrame) -> pd.DataFrame:
    """Estimate effects: a row per sweep, mode, setting and series, then steady-state rows.

    Columns: ``reduction`` of FCFS's mean JCT (%), its ``change`` from all quirks on (points), and
    the factors over FCFS by the first ``quarter`` and by the ``makespan``, each with its 95 %
    interval in ``_low`` and ``_high``; ``queue_depth``, FCFS's mean (requests). ``steady`` holds
    runs without quirks, for contrast, with columns slots and rho; they have no change.
    """
    contrast = steady.assign(
        sweep=[f"steady state, ρ = {rho}" for rho in steady["rho"]],
        mode="continuous",
        quirks_off=ALL_OFF,
    )
    return pd.concat([_estimates(runs), _estimates(contrast)], ignore_index=True)


def _estimates(runs: pd.DataFrame) -> pd.DataFrame:
    rows = _as(against(runs, SETTING), "reduction")
    rows = rows.merge(_as(changes(runs), "change"), how="left", on=KEYS)
    for name, metric in FACTORS.items():
        rows = rows.merge(_as(against(runs, SETTING, metric, "factor"), name), on=KEYS)
    depth = runs[runs["series"] == "fcfs"].groupby(SETTING)["queue_depth_mean"].mean()
    return rows.merge(depth.rename("queue_depth").reset_index(), on=SETTING)


def _as(estimates: pd.DataFrame, name: str) -> pd.DataFrame:
    return estimates.rename(
        columns={"value": name, "low": f"{name}_low", "high": f"{name}_high"},
    )


def changes(runs: pd.DataFrame) -> pd.DataFrame:
    """Change of the JCT reduction (points) from all quirks on to each setting.

    Columns sweep, mode, quirks_off, series, value, low, high; no rows where there are no runs
    with all quirks on.
    """
    measured = replicates(runs, "jct_mean", SETTING)
    rows = []
    for sweep, mode, setting in runs[SETTING].drop_duplicates().itertuples(index=False):
        if (sweep, mode, ALL_ON) not in measured.index.droplevel(["seed", "run"]):
            continue
        before, after = (measured.loc[sweep, mode, key] for key in (ALL_ON, setting))
        for series in measured.columns.drop("fcfs"):
            rows.append((sweep, mode, setting, series, *changed(before, after, series)))
    return pd.DataFrame(rows, columns=[*KEYS, "value", "low", "high"])
