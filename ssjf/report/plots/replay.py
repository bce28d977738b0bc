"""The seed-exact replays beside what the authors' own code printed."""

import pandas as pd

from ssjf.report.plots.common import named

METRICS = {
    "jct_mean": "mean JCT (s)",
    "jct_p99": "p99 JCT (s)",
    "throughput_25": "25 %-throughput (1/s)",
}
KEYS = ["sweep", "mode", "series"]


def replay_table(runs: pd.DataFrame, authors: pd.DataFrame) -> pd.DataFrame:
    """A row per sweep, mode and series: ours, the authors' and the difference of every metric.

    ``runs`` has a row per run (sweep, mode, series, jct_mean and jct_p99 in s, throughput_25 in
    1/s); ``authors`` a row per sweep, mode and series, the same metrics averaged over their runs.
    """
    ours = runs.groupby(KEYS, sort=False)[list(METRICS)].mean()
    theirs = authors.set_index(KEYS)[list(METRICS)].reindex(ours.index)
    fcfs = ours.xs("fcfs", level="series")["jct_mean"]
    share = ours["jct_mean"].div(fcfs).reindex(ours.index)  # dividing by fewer levels sorts
    table = pd.DataFrame({"reduction of FCFS (%)": 100 * (1 - share)})
    for metric, what in METRICS.items():
        table[what] = ours[metric]
        table[f"authors: {what}"] = theirs[metric]
        # Rounded beyond the digits that the authors' values have.
        table[f"difference: {what}"] = (ours[metric] - theirs[metric]).round(6)
    return named(table.reset_index())
