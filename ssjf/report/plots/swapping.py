"""What keeping preempted KV in host memory costs and saves on vLLM.

Rows per run and seed as ``study.on_vllm.swapping`` gives them.
"""

import pandas as pd

from ssjf.analysis import bootstrap

_COLUMNS = {
    "jct_mean": "mean JCT (s)", "busy_seconds": "engine's time (s)",
    "computed_again": "tokens computed again", "preemptions": "preemptions",
    "copy_seconds": "time of the copies (s)",
}  # fmt: skip


def swapping_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds with 95 % intervals, a row per order and way of keeping KV."""
    runs = runs.assign(
        computed_again=runs["prefill_tokens"] - runs["prompt_tokens"],
        copy_seconds=runs["out_seconds"] + runs["back_seconds"],
    )
    rows = []
    for (policy, series), part in runs.groupby(["policy", "series"], sort=False):
        cells = {words: _cell(part[name]) for name, words in _COLUMNS.items()}
        rows.append({"order": policy, "preempted KV": series} | cells)
    return pd.DataFrame(rows)


def _cell(values: pd.Series) -> str:
    value, low, high = bootstrap.interval(values.to_numpy(float))
    if low == high:
        return f"{value:.4g}"
    return f"{value:.4g} [{low:.4g}, {high:.4g}]"
