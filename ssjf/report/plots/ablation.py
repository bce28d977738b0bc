"""The quirk ablation in numbers: what each quirk of the published simulation is worth.

Rows per run: x, seed, run, mode, quirks_off, series, metrics in s and 1/s. Runs with and
without a quirk share jobs (and seeds), so changes are paired, replicate by replicate.
"""

import numpy as np
import pandas as pd

from ssjf.analysis import bootstrap
from ssjf.analysis.estimates import against, replicates
from ssjf.report.plots import quirks
from ssjf.report.plots.common import named

SETTING = ["sweep", "mode", "quirks_off"]
KEYS = [*SETTING, "series"]
FACTORS = {"quarter": "throughput_25", "makespan": "completed_per_second"}
"""Two readings of "throughput": the published one, and what its quirk stands for."""

HEADS = {
    "reduction": "JCT reduction (%)",
    "change": "change (points)",
    "quarter": "25 %-throughput (×)",
    "makespan": "makespan throughput (×)",
    "queue_depth": "FCFS queue depth",
}


def together(**sweeps: pd.DataFrame) -> pd.DataFrame:
    """Several ablations in one frame with a column ``sweep``: the keyword, ``_`` as a space."""
    parts = [frame.assign(sweep=name.replace("_", " ")) for name, frame in sweeps.items()]
    return pd.concat(parts, ignore_index=True)


def ablation_estimates(runs: pd.DataFrame, steady: pd.DataFrame) -> pd.DataFrame:
    """A row per sweep, mode, setting and series; then steady-state rows for contrast.

    ``reduction`` of FCFS's mean JCT (%), its ``change`` from all quirks on (points), and the
    factors over FCFS by the first ``quarter`` and by the ``makespan``, each with its 95 %
    interval in ``_low`` and ``_high``; ``queue_depth`` is FCFS's mean (requests). ``steady``
    has rows per run with slots and rho; it has no quirks, and no change.
    """
    contrast = steady.assign(
        sweep=[f"steady state, ρ = {rho}" for rho in steady["rho"]],
        mode="continuous",
        quirks_off=quirks.ALL_OFF,
    )
    return pd.concat([_estimates(runs), _estimates(contrast)], ignore_index=True)


def _estimates(runs: pd.DataFrame) -> pd.DataFrame:
    found = _as(against(runs, SETTING), "reduction")
    found = found.merge(_as(changes(runs), "change"), how="left", on=KEYS)
    for name, metric in FACTORS.items():
        found = found.merge(_as(against(runs, SETTING, metric, "factor"), name), on=KEYS)
    depth = runs[runs["series"] == "fcfs"].groupby(SETTING)["queue_depth_mean"].mean()
    return found.merge(depth.rename("queue_depth").reset_index(), on=SETTING)


def _as(estimates: pd.DataFrame, name: str) -> pd.DataFrame:
    return estimates.rename(
        columns={"value": name, "low": f"{name}_low", "high": f"{name}_high"},
    )


def changes(runs: pd.DataFrame) -> pd.DataFrame:
    """How much a setting changes the JCT reduction (points) from all quirks on.

    Columns sweep, mode, quirks_off, series, value, low, high; no rows where there are no runs
    with all quirks on.
    """
    measured = replicates(runs, "jct_mean", SETTING)
    found = []
    for sweep, mode, setting in runs[SETTING].drop_duplicates().itertuples(index=False):
        if (sweep, mode, quirks.ALL_ON) not in measured.index.droplevel(["seed", "run"]):
            continue
        settings = [measured.loc[sweep, mode, key] for key in (quirks.ALL_ON, setting)]
        for series in measured.columns.drop("fcfs"):
            pair = [wide[["fcfs", series]].to_numpy().T for wide in settings]
            estimate = bootstrap.statistic(_change, np.stack(pair))
            found.append((sweep, mode, setting, series, *estimate))
    return pd.DataFrame(found, columns=[*KEYS, "value", "low", "high"])


def _change(values: np.ndarray) -> np.ndarray:
    """``values`` (resamples, 2 settings, 2 policies, replicates) -> points, (resamples,)."""
    mean = values.mean(axis=-1)
    reduction = 100 * (1 - mean[..., 1] / mean[..., 0])
    return reduction[:, 1] - reduction[:, 0]


def ablation_table(estimates: pd.DataFrame) -> pd.DataFrame:
    """``ablation_estimates`` in words: what is taken off, and what that mends."""
    settings = estimates["quirks_off"]
    worded = named(estimates.drop(columns="quirks_off"))
    worded.insert(2, "quirk off", settings.map(quirks.off))
    worded.insert(3, "mended", settings.map(quirks.mended))
    ends = {f"{k}_{end}": f"{h}, {end}" for k, h in HEADS.items() for end in ("low", "high")}
    return worded.rename(columns=HEADS | ends)


def ablation_brief(table: pd.DataFrame) -> pd.DataFrame:
    """``ablation_table`` at a glance: the reduction (%) and, behind it, its change (points).

    A row per sweep and setting, a column of text per mode and policy; no change is written
    where a setting changes nothing.
    """
    text = [_brief(*row) for row in table[[HEADS["reduction"], HEADS["change"]]].to_numpy()]
    table = table.assign(text=text, column=table["mode"] + ", " + table["policy"])
    keys = ["sweep", "quirk off"]
    wide = table.pivot(index=keys, columns="column", values="text").fillna("–").reset_index()
    return table[keys].drop_duplicates().merge(wide, on=keys)[[*keys, *table["column"].unique()]]


def _brief(reduction: float, change: float) -> str:
    if np.isnan(change) or change == 0:
        return f"{reduction:.1f}"
    change = round(change, 1)
    return f"{reduction:.1f} ({change:+.1f})" if change else f"{reduction:.1f} (0.0)"
