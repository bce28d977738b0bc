"""The arena's board: what each policy gains in the mean and loses in the tail, by traffic."""

import numpy as np
import pandas as pd

CELL = ["workload", "arrivals", "slots", "x"]
TAILS = {"p99": "jct_p99", "p999": "jct_p99.9", "max": "jct_max", "slowdown": "slowdown_p99"}
WORTH_PERCENT = 5.0  # of a gain of the mean JCT: below it there is nothing to schedule


def cells(runs: pd.DataFrame, baseline: str = "fcfs", best: str = "ssjf") -> pd.DataFrame:
    """Compare policies in each cell (workload, arrivals, slots, x: load), by means over seeds.

    Columns: gain (% of the baseline's mean JCT), share (% of the gain of ``best``, NaN where that
    is below ``WORTH_PERCENT``), and p99, p999, max and slowdown, each in % above the baseline's.
    """
    metrics = ["jct_mean", *TAILS.values()]
    means = runs.astype(dict.fromkeys(metrics, np.float64)).groupby([*CELL, "series"], sort=False)
    wide = means[metrics].mean()
    ratios = wide / wide.xs(baseline, level="series").reindex(wide.index.droplevel("series")).values
    table = pd.DataFrame({"gain": 100 * (1 - ratios["jct_mean"])})
    for name, metric in TAILS.items():
        table[name] = 100 * (ratios[metric] - 1)
    most = table["gain"].xs(best, level="series").reindex(table.index.droplevel("series")).values
    table["share"] = 100 * table["gain"] / np.where(most >= WORTH_PERCENT, most, np.nan)
    return table.drop(baseline, level="series").reset_index()


def board(cells: pd.DataFrame, p99: float = 5.0, p999: float = 10.0) -> pd.DataFrame:
    """Rank policies over the cells with a share, by the number of cells whose tail they keep.

    Columns: series, cells, share (median, least), kept99 and kept (cells whose p99 is at most
    ``p99`` % above the baseline's; and p99.9 at most ``p999`` % too), and the worst p99, the median
    and worst p99.9, the worst max and the median p99 slowdown, in the units of ``cells``.
    """
    worth = cells[cells["share"].notna()].assign(
        kept99=lambda each: each["p99"] <= p99,
        kept=lambda each: (each["p99"] <= p99) & (each["p999"] <= p999),
    )
    table = worth.groupby("series", sort=False).agg(
        cells=("share", "size"), share=("share", "median"), least_share=("share", "min"),
        kept99=("kept99", "sum"), kept=("kept", "sum"), worst_p99=("p99", "max"),
        p999=("p999", "median"), worst_p999=("p999", "max"), worst_max=("max", "max"),
        slowdown=("slowdown", "median"),
    )  # fmt: skip
    return table.sort_values(["kept", "share"], ascending=False).reset_index()
