"""Traces in the package's own schema.

Columns: ``arrived_at`` (seconds, from 0, sorted), ``prompt_tokens``, ``output_tokens``, and
where there is one ``predicted_tokens``. Other columns are ignored.
"""

from pathlib import Path

import numpy as np

from ssjf.request import FloatArray, Requests
from ssjf.workload.tables import numbers, read_columns, refuse, tokens

PREDICTED = "predicted_tokens"
UNSORTED = "is before the time of the row above; times must be sorted"


def load_trace(path: str | Path, predicted: str | None = None) -> Requests:
    """The requests of a ``.csv``, ``.jsonl`` or ``.parquet`` file.

    ``predicted`` names the column of predictions, which must then be there; unnamed, it is
    ``predicted_tokens`` if the file has that. Either way it becomes
    ``predictions["predicted_tokens"]``. Rows of equal arrival times, which logs
    with stamps in whole seconds have, keep their order. Raises InputError naming file, row and
    column.
    """
    path = Path(path)
    required = ["arrived_at", "prompt_tokens", "output_tokens", *([predicted] if predicted else [])]
    columns = read_columns(path, required, optional=() if predicted else (PREDICTED,))
    column = predicted or PREDICTED
    return Requests(
        arrival_times(path, "arrived_at", columns["arrived_at"]),
        tokens(path, "prompt_tokens", columns["prompt_tokens"]),
        tokens(path, "output_tokens", columns["output_tokens"]),
        {PREDICTED: numbers(path, column, columns[column])} if column in columns else {},
    )


def arrival_times(path: Path, column: str, values: list) -> FloatArray:
    """The values as sorted times of at least 0 s; equal times may stand beside each other."""
    times = numbers(path, column, values)
    refuse(path, column, values, times < 0, "is negative; times start at 0")
    refuse(path, column, values, np.diff(times, prepend=-np.inf) < 0, UNSORTED)
    return times
