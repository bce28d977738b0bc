"""Columns of a table file (.csv, .jsonl, .parquet) and the checks of their values.

A column is a list with one value per data row; rows are counted from 1 in messages, without
the header and blank lines. Whatever is wrong with a file raises InputError naming it.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssjf.errors import InputError, unknown
from ssjf.request import FloatArray, IntArray

MAX_TOKENS = 2**31 - 1  # beyond it a count is a mistake, and 32-bit columns overflow

Columns = dict[str, list]


def read_columns(path: Path, required: Iterable[str], optional: Iterable[str] = ()) -> Columns:
    """The required columns and those of the optional ones that are there; at least one row."""
    path = Path(path)
    if path.suffix.lower() not in READERS:
        raise unknown(f"suffix of file {path}:", path.suffix, READERS)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    columns = READERS[path.suffix.lower()](path, list(dict.fromkeys(required)), [*optional])
    if not len(next(iter(columns.values()))):
        raise InputError(f"{path}: the table has no rows; at least one is needed")
    return columns


def numbers(path: Path, column: str, values: list) -> FloatArray:
    """The values as finite floats."""
    array = np.fromiter(map(_number, values), np.float64, len(values))
    refuse(path, column, values, ~np.isfinite(array), "is not a finite number")
    return array


def tokens(path: Path, column: str, values: list, low: int = 1) -> IntArray:
    """The values as whole numbers of at least ``low``."""
    array = numbers(path, column, values)
    wrong = (array != np.floor(array)) | (array < low) | (array > MAX_TOKENS)
    refuse(path, column, values, wrong, f"is not a whole number of at least {low}")
    return array.astype(np.int64)


def refuse(path: Path, column: str, values: list, wrong: NDArray[np.bool_], why: str) -> None:
    """Raise InputError for the first row where ``wrong`` holds."""
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(f"{path}, row {row + 1}, column {column}: {values[row]!r:.60} {why}")


def _number(value: Any) -> float:
    if isinstance(value, bool):  # JSON's true is not a count of 1
        return np.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return np.nan


def _pick(path: Path, found: list[str], required: list[str], optional: list[str]) -> list[str]:
    for name in required:
        if name not in found:
            raise InputError(
                f"{path}: column {name!r} is missing; found: {', '.join(found) or 'none'}"
            )
    wanted = [*required, *(name for name in optional if name in found)]
    for name in wanted:
        if found.count(name) > 1:
            raise InputError(f"{path}: column {name!r} is there twice; it must be there once")
    return wanted


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if b"\0" in data:
            raise InputError(f"{path}: the file is not text (it holds zero bytes)")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: the file is not text in UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: the file cannot be read ({error.strerror})") from None


def _read_csv(path: Path, required: list[str], optional: list[str]) -> Columns:
    csv.field_size_limit(MAX_TOKENS)  # a prompt may be longer than its default of 128 KiB
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        header = next(reader, [])
        wanted = _pick(path, header, required, optional)
        at = [header.index(name) for name in wanted]
        rows = [[row[i] for i in at] for row in _full_rows(path, len(header), reader)]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not valid CSV ({error})") from None
    return {name: [row[i] for row in rows] for i, name in enumerate(wanted)}


def _full_rows(path: Path, width: int, reader: Iterable[list[str]]) -> Iterator[list[str]]:
    for number, row in enumerate(filter(None, reader), 1):
        if len(row) != width:
            raise InputError(f"{path}, row {number}: {len(row)} fields for {width} columns")
        yield row


def _read_jsonl(path: Path, required: list[str], optional: list[str]) -> Columns:
    lines = enumerate(_text(path).split("\n"), 1)
    rows = [_json_row(path, number, line) for number, line in lines if line.strip()]
    found = list(dict.fromkeys(name for row in rows for name in row))
    wanted = _pick(path, found, required, optional) if rows else required
    return {name: [row.get(name) for row in rows] for name in wanted}


def _json_row(path: Path, number: int, line: str) -> dict:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}, line {number}: not valid JSON ({error})") from None
    if not isinstance(row, dict):
        raise InputError(f"{path}, line {number}: not a JSON object with one key per column")
    return row


def _read_parquet(path: Path, required: list[str], optional: list[str]) -> Columns:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            wanted = _pick(path, file.schema_arrow.names, required, optional)
            return file.read(columns=wanted).to_pydict()
    except UnicodeDecodeError:
        raise InputError(f"{path}: a column of text is not in UTF-8") from None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path}: not a readable parquet file ({reason})") from None


READERS = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
