"""Reads traces in the package's own schema and in published formats.

The own schema has columns ``arrived_at`` (seconds from 0, sorted), ``prompt_tokens``,
``output_tokens`` and optionally ``predicted_tokens``. Other columns are ignored.

Times of published formats become seconds from the earliest row; requests without a prompt or an
answer (failures) are left out. Every loader raises InputError for a broken file.
"""

from pathlib import Path

import numpy as np

from ssjf.errors import InputError
from ssjf.request import FloatArray, IntArray, Requests
from ssjf.workload.tables import Columns, numbers, read_columns, refuse, tokens

PREDICTED = "predicted_tokens"
UNSORTED = "is before the time of the row above; times must be sorted"


def load_trace(path: str | Path, predicted: str | None = None) -> Requests:
    """Read the requests of a ``.csv``, ``.jsonl`` or ``.parquet`` file.

    ``predicted`` names a required column of predictions; by default it is ``predicted_tokens``, if
    the file has that. It becomes ``predictions["predicted_tokens"]``. Rows with equal arrival times
    (logs in whole seconds have many) keep their order. Raises InputError, which names file, row and
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
    """Convert values to sorted times of at least 0 s; equal times are allowed."""
    times = numbers(path, column, values)
    refuse(path, column, values, times < 0, "is negative; times start at 0")
    refuse(path, column, values, np.diff(times, prepend=-np.inf) < 0, UNSORTED)
    return times


def azure(path: Path) -> Requests:
    """Azure LLM inference trace 2023, CSV: TIMESTAMP (7 decimals), ContextTokens, GeneratedTokens.

    https://github.com/Azure/AzurePublicDataset/blob/master/AzureLLMInferenceDataset2023.md
    """
    columns = read_columns(path, ["TIMESTAMP", "ContextTokens", "GeneratedTokens"])
    stamps = columns["TIMESTAMP"]
    moments = np.array([_moment(stamp) for stamp in stamps])
    refuse(path, "TIMESTAMP", stamps, np.isnat(moments), "is not a date and time")
    # Subtract as whole nanoseconds: as floats, dates would lose the last decimals.
    seconds = (moments - moments[0]) / np.timedelta64(1, "s")
    refuse(path, "TIMESTAMP", stamps, np.diff(seconds, prepend=0) < 0, UNSORTED)
    return _served(path, seconds, columns, "ContextTokens", "GeneratedTokens")


def mooncake(path: Path) -> Requests:
    """Mooncake trace, JSONL: timestamp (ms), input_length, output_length (and hash_ids, ignored).

    https://github.com/kvcache-ai/Mooncake/tree/main/FAST25-release
    """
    columns = read_columns(path, ["timestamp", "input_length", "output_length"])
    milliseconds = arrival_times(path, "timestamp", columns["timestamp"])
    seconds = (milliseconds - milliseconds[0]) / 1000
    return _served(path, seconds, columns, "input_length", "output_length")


def burstgpt(path: Path) -> Requests:
    """BurstGPT, CSV: Timestamp (s), Request tokens, Response tokens (0: failed) and others.

    Sorted by time, rows of equal time in the order of the file.
    https://github.com/HPMLL/BurstGPT
    """
    columns = read_columns(path, ["Timestamp", "Request tokens", "Response tokens"])
    seconds = numbers(path, "Timestamp", columns["Timestamp"])
    seconds -= seconds.min()
    requests = _served(path, seconds, columns, "Request tokens", "Response tokens")
    return requests.take(np.argsort(requests.arrived_at, kind="stable"))


def ssjf_csv(cls3_path: Path, cls5_path: Path) -> Requests:
    """The SSJF authors' predictions of 3 and of 5 classes, two CSVs of the same requests.

    Columns output_token_length and predicted_length (a class id, from 0). See ssjf_joined.
    https://github.com/James-QiuHaoran/LLM-serving-with-proxy-models
    """
    length, predicted = "output_token_length", "predicted_length"
    cls3, cls5 = (read_columns(path, [length, predicted]) for path in (cls3_path, cls5_path))
    if cls3[length] != cls5[length]:
        raise InputError(f"{cls3_path} and {cls5_path} must list the same requests in one order")
    classes = {"cls3": numbers(cls3_path, predicted, cls3[predicted]),
               "cls5": numbers(cls5_path, predicted, cls5[predicted])}  # fmt: skip
    return _lengths_only(tokens(cls3_path, length, cls3[length]), classes)


def ssjf_joined(path: Path) -> Requests:
    """The two files of ssjf_csv joined by row: output_tokens, pred_cls3, pred_cls5.

    Lengths only, in the order of the file: every ``arrived_at`` is 0 and, as the authors do
    not give them, every ``prompt_tokens`` is 1. ``predictions`` are class ids, "cls3" (split
    at 141 and 503 tokens) and "cls5" (split at 42, 141, 294 and 503).
    """
    columns = read_columns(path, ["output_tokens", "pred_cls3", "pred_cls5"])
    classes = {name: numbers(path, f"pred_{name}", columns[f"pred_{name}"])
               for name in ("cls3", "cls5")}  # fmt: skip
    return _lengths_only(tokens(path, "output_tokens", columns["output_tokens"]), classes)


def _lengths_only(output_tokens: IntArray, classes: dict[str, FloatArray]) -> Requests:
    n = len(output_tokens)
    return Requests(np.zeros(n), np.ones(n, np.int64), output_tokens, classes)


def _served(
    path: Path, seconds: FloatArray, columns: Columns, prompt: str, output: str
) -> Requests:
    prompt_tokens = tokens(path, prompt, columns[prompt], low=0)
    output_tokens = tokens(path, output, columns[output], low=0)
    served = (prompt_tokens > 0) & (output_tokens > 0)
    if not served.any():
        raise InputError(f"{path}: no row has both {prompt} and {output} above 0")
    return Requests(seconds, prompt_tokens, output_tokens).take(served)


def _moment(stamp: str) -> np.datetime64:
    try:
        return np.datetime64(stamp, "ns")
    except ValueError:
        return np.datetime64("NaT", "ns")
