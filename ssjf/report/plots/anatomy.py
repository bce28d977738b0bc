"""One run on vLLM from the inside: who holds the slots, who waits, how full the KV memory is.

Rows as ``study.on_vllm.anatomy`` gives them, of requests and of steps; times in s.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssjf.report import style
from ssjf.report.plots.common import facets


def anatomy(rows: pd.DataFrame, kv_blocks: int) -> Figure:
    """A column per policy: Gantt chart of the requests, queue depth, KV blocks in use."""
    policies = list(rows["series"].unique())
    with style.context():
        fig, axes = facets(3, len(policies), 6.4, sharex=True, sharey="row",
                           height_ratios=[2.2, 1, 1])  # fmt: skip
        for column, series in zip(axes.T, policies, strict=True):
            looks = style.look(series)
            part = rows[rows["series"] == series]
            _gantt(column[0], part[part["of"] == "request"], looks)
            _over_time(column[1], column[2], part[part["of"] == "step"], looks, kv_blocks)
            column[0].set_title(looks["label"])
            column[2].set_xlabel("time (s)")
        axes[0, 0].set_ylabel("request, by arrival")
        axes[1, 0].set_ylabel("waiting\n(requests)")
        axes[2, 0].set_ylabel("KV blocks\nin use")
    return fig


def _gantt(ax: Axes, requests: pd.DataFrame, looks: dict[str, str]) -> None:
    at = np.arange(len(requests))
    ax.hlines(at, requests["arrived_at"], requests["scheduled_at"], color=looks["color"],
              alpha=0.22, lw=1.6)  # fmt: skip
    ax.hlines(at, requests["scheduled_at"], requests["finished_at"], color=looks["color"], lw=1.6)
    again = requests["preempted"].to_numpy() > 0
    ax.plot(requests["finished_at"][again], at[again], "k|", ms=4)
    ax.set(ylim=(len(requests), -1), xlim=(0, None))
    ax.grid(visible=False, axis="y")


def _over_time(
    queue: Axes, memory: Axes, steps: pd.DataFrame, looks: dict[str, str], kv_blocks: int
) -> None:
    time = steps["started_at"]
    queue.fill_between(time, steps["waiting"], step="post", color=looks["color"], alpha=0.5, lw=0)
    memory.fill_between(time, steps["kv_blocks"], step="post", color=looks["color"], alpha=0.5,
                        lw=0)  # fmt: skip
    preempting = steps[steps["preemptions"] > 0]
    memory.plot(preempting["started_at"], preempting["kv_blocks"], "k.", ms=3)
    memory.axhline(kv_blocks, color="#444444", lw=0.8, ls="--")
    memory.set_ylim(0, None)


def anatomy_table(rows: pd.DataFrame) -> pd.DataFrame:
    """What the run cost under each policy, one row each."""
    found = []
    for series, part in rows.groupby("series", sort=False):
        requests, steps = part[part["of"] == "request"], part[part["of"] == "step"]
        jct = requests["finished_at"] - requests["arrived_at"]
        found.append({
            "policy": style.look(str(series))["label"], "mean JCT (s)": jct.mean(),
            "p99 JCT (s)": jct.quantile(0.99), "preemptions": int(requests["preempted"].sum()),
            "steps": len(steps), "mean queue depth": steps["waiting"].mean(),
            "prefilled tokens": int(steps["prefill_tokens"].sum()),
            "mean KV blocks": steps["kv_blocks"].mean(),
        })  # fmt: skip
    return pd.DataFrame(found)
