"""The rows that a run is stored as: one per repetition, or one per request."""

from typing import Any

import numpy as np
import pandas as pd

from ssjf.analysis import metrics
from ssjf.experiments.specs import Queued
from ssjf.request import Completions


def table(spec: Queued, parts: list[Any]) -> pd.DataFrame:
    """All rows of a run from what ``row`` gave of each repetition."""
    if spec.detail == "requests":
        return pd.concat(parts, ignore_index=True)
    rows = pd.DataFrame(parts)
    for name in rows.columns.difference(["x", "seed", "run"]):
        rows[name] = rows[name].astype(np.float32)
    return rows.astype({"x": np.float32, "seed": np.int32, "run": np.int32})


def row(spec: Queued, x, seed, run, measured: Completions, alone) -> Any:
    """One repetition: its metrics, or a table of its requests where ``detail`` says so."""
    if spec.detail == "requests":
        return _request_rows(x, seed, run, measured)
    values = metrics.summarise(measured, alone, spec.warmup_fraction)
    if spec.columns is not None:
        values["preemptions"] = float(measured.preemptions.sum())
        values = {name: values[name] for name in spec.columns}
    return {"x": x, "seed": seed, "run": run, **values}


def _request_rows(x, seed, run, measured: Completions) -> pd.DataFrame:
    requests = measured.requests
    return pd.DataFrame(
        {
            "x": np.float32(x),
            "seed": np.int32(seed),
            "run": np.int32(run),
            "arrived_at": requests.arrived_at,
            "output_tokens": requests.output_tokens.astype(np.int32),
            "scheduled_at": measured.scheduled_at,
            "first_token_at": measured.first_token_at,
            "finished_at": measured.finished_at,
        }
    )
