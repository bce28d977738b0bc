"""The rows that a run is stored as: how they are made, and what they must look like."""

from typing import Any

import numpy as np
import pandas as pd

from ssjf.analysis import metrics
from ssjf.errors import InputError, unknown
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


KEYS = ("x", "seed", "run")
DETAILS = ("runs", "requests", "predictions", "measurements")


def check_rows(rows: pd.DataFrame, detail: str, where: str) -> None:
    """Raise InputError, naming the column, where rows are not what the detail promises."""
    import pandera.pandas as pa

    if detail not in DETAILS:
        raise unknown("detail", detail, DETAILS)
    keys = {"x": _numbers(pa), "seed": _numbers(pa, whole=True), "run": _numbers(pa, whole=True)}
    of_detail = {"runs": _runs, "requests": _requests, "predictions": _predictions}
    columns = keys | of_detail[detail](pa, rows) if detail in of_detail else _measured(pa, rows)
    for name in columns:
        if name not in rows:
            raise InputError(f"rows of {where}: column {name} is missing")
    if rows.empty:
        raise InputError(f"rows of {where}: there are none; at least one is needed")
    try:
        pa.DataFrameSchema(columns).validate(rows, lazy=True)
    except pa.errors.SchemaErrors as error:
        bad = error.failure_cases.iloc[0]
        raise InputError(
            f"rows of {where}: column {bad['column']}: {bad['failure_case']} is not allowed; "
            f"values must be {columns[bad['column']].description}"
        ) from None


def _numbers(pa, low: float = 0, whole: bool = False, nullable: bool = False):
    """A column of finite numbers of at least ``low``."""

    def fits(values: pd.Series) -> pd.Series:
        if not pd.api.types.is_numeric_dtype(values):
            return pd.Series(False, index=values.index)
        return (values >= low) & np.isfinite(values) & (not whole or values % 1 == 0)

    what = "whole" if whole else "finite"
    missing = " or missing" if nullable else ""
    description = f"{what} numbers of at least {low:g}{missing}"
    return pa.Column(checks=pa.Check(fits), nullable=nullable, description=description)


def _requests(pa, rows: pd.DataFrame):
    """One row per request: time stamps in seconds (missing for a job that was lost), lengths."""
    stamps = ("scheduled_at", "first_token_at", "finished_at")
    return {
        "arrived_at": _numbers(pa),
        "output_tokens": _numbers(pa, low=1, whole=True),
        **{name: _numbers(pa, nullable=True) for name in stamps},
    }


def _predictions(pa, rows: pd.DataFrame):
    """One row per prompt of a test split: its true length, what was predicted, quantiles."""
    quantiles = [name for name in rows.columns if name.startswith("q0.")]
    tokens = {name: _numbers(pa, low=1) for name in ("predicted_tokens", *quantiles)}
    return {"output_tokens": _numbers(pa, low=1, whole=True), **tokens}


def _runs(pa, rows: pd.DataFrame):
    """One row per run: metrics, which are numbers and not negative."""
    metrics = [name for name in rows.columns if name not in KEYS]
    return {name: _numbers(pa, nullable=True) for name in metrics} | {"jct_mean": _numbers(pa)}


def _measured(pa, rows: pd.DataFrame):
    """One row per measurement, in columns of its own: names, and numbers that may be missing."""
    numbers = _numbers(pa, low=-np.inf, nullable=True)
    names = pa.Column(checks=pa.Check(_are_names), description="names, or numbers")
    numeric = pd.api.types.is_numeric_dtype
    return {name: numbers if numeric(rows[name]) else names for name in rows.columns}


def _are_names(values: pd.Series) -> pd.Series:
    return values.map(lambda value: isinstance(value, str) and bool(value))
