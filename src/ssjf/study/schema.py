"""What the rows of a raw run look like, by detail: checked when written."""

import pandas as pd

from ssjf.errors import InputError, unknown

KEYS = ("x", "seed", "run")
DETAILS = ("runs", "requests")


def check_rows(rows: pd.DataFrame, detail: str, where: str) -> None:
    """Raise InputError, naming the column, where rows are not what the detail promises."""
    import pandera.pandas as pa

    if detail not in DETAILS:
        raise unknown("detail", detail, DETAILS)
    keys = {
        "x": pa.Column(float, coerce=True),
        "seed": pa.Column(int, pa.Check.ge(0), coerce=True),
        "run": pa.Column(int, pa.Check.ge(0), coerce=True),
    }
    schema = pa.DataFrameSchema(keys | (_requests(pa) if detail == "requests" else _runs(pa, rows)))
    try:
        schema.validate(rows, lazy=False)
    except pa.errors.SchemaError as error:
        column = getattr(error.schema, "name", None)
        raise InputError(f"rows of {where}: column {column}: {error}".split("\n")[0]) from None


def _requests(pa):
    """One row per request: time stamps in seconds (missing for a job that was lost), lengths."""
    stamp = pa.Column(float, pa.Check.ge(0), nullable=True, coerce=True)
    return {
        "arrived_at": pa.Column(float, pa.Check.ge(0), coerce=True),
        "output_tokens": pa.Column(int, pa.Check.ge(1), coerce=True),
        "scheduled_at": stamp,
        "first_token_at": stamp,
        "finished_at": stamp,
    }


def _runs(pa, rows: pd.DataFrame):
    """One row per run: metrics, which are numbers and not negative."""
    metrics = [name for name in rows.columns if name not in KEYS]
    column = pa.Column(float, pa.Check.ge(0), nullable=True, coerce=True)
    required = {"jct_mean": pa.Column(float, pa.Check.ge(0), coerce=True)}
    return {name: column for name in metrics} | required
