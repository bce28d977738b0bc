"""The quirk ablation in numbers: what each quirk of the published simulation is worth.

Rows per run: x, seed, run, mode, quirks_off, series, metrics in s and 1/s. Runs with and
without a quirk share jobs (and seeds), so changes are paired, replicate by replicate.
"""

import numpy as np
import pandas as pd

from ssjf.study import bootstrap
from ssjf.study.plots import quirks
from ssjf.study.plots.common import named
from ssjf.study.plots.estimates import against, replicates, with_columns

SETTING = ["sweep", "mode", "quirks_off"]


def together(**sweeps: pd.DataFrame) -> pd.DataFrame:
    """Several ablations in one frame with a column ``sweep``: the keyword, ``_`` as a space."""
    parts = [frame.assign(sweep=name.replace("_", " ")) for name, frame in sweeps.items()]
    return pd.concat(parts, ignore_index=True)


def changes(runs: pd.DataFrame) -> pd.DataFrame:
    """How much a setting changes the JCT reduction (points) from all quirks on.

    Columns sweep, mode, quirks_off, series, value, low, high.
    """
    found = []
    for (sweep, mode), part in runs.groupby(["sweep", "mode"], sort=False):
        wide = {key: replicates(p, "jct_mean") for key, p in part.groupby("quirks_off")}
        for setting in part["quirks_off"].unique():
            for series in wide[setting].columns.drop("fcfs"):
                pair = [wide[s][["fcfs", series]].to_numpy().T for s in (quirks.ALL_ON, setting)]
                estimate = bootstrap.statistic(_change, np.stack(pair))
                keys = {"sweep": sweep, "mode": mode, "quirks_off": setting, "series": series}
                found.append(keys | estimate._asdict())
    return pd.DataFrame(found)


def _change(values: np.ndarray) -> np.ndarray:
    """``values`` (resamples, 2 settings, 2 policies, replicates) -> points, (resamples,)."""
    mean = values.mean(axis=-1)
    reduction = 100 * (1 - mean[..., 1] / mean[..., 0])
    return reduction[:, 1] - reduction[:, 0]


READINGS = {
    "first quarter of finishers (published)": ("throughput_25", quirks.ALL_ON),
    "all finished / makespan": ("completed_per_second", quirks.ALL_ON),
    "the same, last job served": ("completed_per_second", "drops_last_job"),
}
"""How "throughput" may be read: the metric, and the setting it is read in."""


def throughputs(runs: pd.DataFrame) -> pd.DataFrame:
    """The factor over FCFS by each way of reading "throughput".

    Columns sweep, mode, reading, series, value, low, high.
    """
    parts = []
    for reading, (metric, setting) in READINGS.items():
        chosen = runs[runs["quirks_off"] == setting]
        factor = against(chosen, ["sweep", "mode"], metric, "factor")
        parts.append(factor.assign(reading=reading))
    return pd.concat(parts, ignore_index=True)


def ablation_table(runs: pd.DataFrame, steady: pd.DataFrame) -> pd.DataFrame:
    """A row per sweep, mode, setting and series; then steady-state rows for contrast.

    JCT reduction (%) and its change from all quirks on (points), the factor of either reading
    of "throughput", all with 95 % intervals, and the mean queue depth under FCFS. ``steady``
    has rows per run with slots and rho.
    """
    table = _measured(runs, SETTING)
    change = changes(runs)
    names = {"value": "change (points)", "low": "change low", "high": "change high"}
    table = with_columns(table, change, SETTING, **names)
    contrast = steady.assign(
        sweep=[f"steady state, ρ = {rho}" for rho in steady["rho"]],
        mode="continuous",
        quirks_off=quirks.ALL_OFF,
    )
    table = pd.concat([table, _measured(contrast, SETTING)], ignore_index=True)
    return _worded(table)


def _measured(runs: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    table = against(runs, by).rename(
        columns={"value": "JCT reduction (%)", "low": "low (%)", "high": "high (%)"}
    )
    for metric, name in (("throughput_25", "25 %"), ("completed_per_second", "makespan")):
        factor = against(runs, by, metric, "factor")
        columns = {"value": f"{name}-throughput (×)", "low": f"{name} low", "high": f"{name} high"}
        table = with_columns(table, factor, by, **columns)
    depth = runs[runs["series"] == "fcfs"].groupby(by)["queue_depth_mean"].mean()
    return table.merge(depth.rename("FCFS queue depth").reset_index(), on=by)


def _worded(table: pd.DataFrame) -> pd.DataFrame:
    settings = table["quirks_off"]
    table.insert(2, "without", settings.map(quirks.off))
    table.insert(3, "mended", settings.map(quirks.mended))
    return named(table.drop(columns="quirks_off"))


def ablation_brief(table: pd.DataFrame) -> pd.DataFrame:
    """``ablation_table`` at a glance: the reduction (%) and, behind it, its change (points).

    A row per sweep and setting, a column of text per mode and policy; a dash for a setting
    that changes nothing there.
    """
    text = [_brief(*row) for row in table[["JCT reduction (%)", "change (points)"]].to_numpy()]
    table = table.assign(text=text, column=table["mode"] + ", " + table["policy"])
    keys = ["sweep", "without"]
    wide = table.pivot(index=keys, columns="column", values="text").reset_index()
    return table[keys].drop_duplicates().merge(wide, on=keys)[[*keys, *table["column"].unique()]]


def _brief(reduction: float, change: float) -> str:
    if np.isnan(change) or change == 0:
        return f"{reduction:.1f}"
    return f"{reduction:.1f} ({change:+.1f})"
