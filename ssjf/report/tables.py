"""Tables that several notebooks show."""

from collections.abc import Collection, Sequence

import pandas as pd

from ssjf.analysis.estimates import against, spread_over_seeds, with_interval
from ssjf.analysis.predictions import WORDS
from ssjf.errors import InputError, unknown
from ssjf.report.drawing import named
from ssjf.simulator import shapes

REDUCTION = "JCT reduction (%)"
FACTOR = "25 %-throughput (×)"
SPREAD = "spread over seeds (points)"


def gains(
    runs: pd.DataFrame, by: list[str] | None = None, replay: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Tabulate gains over FCFS, averaged over x: a row per key ``by`` (default: mode) and policy.

    Columns: JCT reduction (%) and its 95 % interval, its standard deviation over seeds (points),
    and that of the replayed seed 42 if ``replay`` (rows per run) is given; the same of the
    25 %-throughput (a factor); the mean queue depth under FCFS.
    """
    by = by or ["mode"]
    table = _both(runs, by)
    if runs["seed"].nunique() > 1:
        spread = spread_over_seeds(runs, by).rename(columns={"spread": SPREAD})
        table = table.merge(spread, how="left")
    if replay is not None:
        old = {REDUCTION: "reduction, seed 42 (%)", FACTOR: "25 %-throughput, seed 42 (×)"}
        again = _both(replay, by)[[*by, "series", *old]].rename(columns=old)
        table = table.merge(again, how="left")
    fcfs = runs[runs["series"] == "fcfs"].groupby(by)["queue_depth_mean"].mean()
    return named(table.merge(fcfs.rename("FCFS queue depth").reset_index(), on=by))


def _both(runs: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    reduction = against(runs, by).rename(
        columns={"value": REDUCTION, "low": "low (%)", "high": "high (%)"}
    )
    factor = against(runs, by, "throughput_25", "factor").rename(
        columns={"value": FACTOR, "low": "low (×)", "high": "high (×)"}
    )
    return reduction.merge(factor, on=[*by, "series"])


def quality(
    estimates: pd.DataFrame, metrics: Sequence[str], by: Sequence[str] = ("series",)
) -> pd.DataFrame:
    """Tabulate prediction quality: a row per key, a column of ``value [low, high]`` per metric.

    ``estimates`` are those of ``ssjf.analysis.predictions``, with columns ``by`` and metric.
    """
    cells = estimates.assign(text=with_interval(estimates))
    wide = cells.pivot_table("text", [*by], "metric", "first", sort=False)
    kept = [metric for metric in metrics if metric in wide]
    return wide[kept].rename(columns=WORDS).reset_index()


def machines(devices: Collection[str] = ()) -> pd.DataFrame:
    """Tabulate memory, step times and link of models on devices (all, or those named).

    By arithmetic; where a model does not fit its device, the last columns are empty.
    """
    for name in devices:
        if name not in shapes.DEVICES:
            raise unknown("device", name, shapes.DEVICES)
    return pd.DataFrame(
        [_machine(model, on) for on in devices or shapes.DEVICES for model in shapes.SHAPES]
    )


def _machine(model: str, on: str) -> dict[str, object]:
    shape, device = shapes.SHAPES[model], shapes.DEVICES[on]
    row: dict[str, object] = {
        "device": on,
        "model": model,
        "parameters (10⁹)": shape.parameters / 1e9,
        "weights (GB)": shape.weight_bytes / 1e9,
        "KV per token (kB)": shape.kv_bytes_per_token / 1e3,
    }
    try:
        profile, server, memory = shapes.deployed(model, on)
    except InputError:
        return row
    half_seconds = memory.bytes_per_token / 2 / memory.out_bytes_per_second  # of 16 bits' bytes
    return row | {
        "KV memory (tokens)": server.kv_tokens,
        "step, weights read (ms)": 1e3 * profile.step_seconds,
        "step, per 1,000 tokens of context (ms)": 1e6 * profile.per_context_token_seconds,
        "prefill of 1,000 tokens (ms)": 1e6 * profile.per_prefill_token_seconds,
        "link (GB/s)": device.link_bytes_per_second / 1e9,
        "swapping 1,000 tokens, 8 bits (ms)": 1e6
        * (half_seconds + memory.quantise_seconds_per_token),
        "host memory (GiB)": memory.host_tokens * shape.kv_bytes_per_token / shapes.GIB,
    }
