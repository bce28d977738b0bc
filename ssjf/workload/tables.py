"""Reads columns of table files (.csv, .jsonl, .json, .parquet) and checks their values.

A column is a list with one value per data row; messages count rows from 1, without the header and
blank lines. Errors in a file raise InputError, which names it.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssjf.errors import InputError, unknown
from ssjf.request import FloatArray, IntArray

MAX_TOKENS = 2**31 - 1  # beyond it a count is a mistake, and 32-bit columns overflow

TRACE_SUFFIXES = (".csv", ".jsonl", ".parquet")
TEXT_SUFFIXES = (*TRACE_SUFFIXES, ".json")

Columns = dict[str, list]
Reader = Callable[[list[str]], Columns]


def read_columns(path: Path, required: Iterable[str], optional: Iterable[str] = ()) -> Columns:
    """Read the required columns and the optional ones that exist; there must be a row."""
    path, required = Path(path), list(required)
    names, read = open_table(path, TRACE_SUFFIXES)
    for name in required:
        if name not in names:
            there = ", ".join(names) or "none"
            raise InputError(f"{path}: column {name!r} is missing; found: {there}")
    wanted = [*required, *(name for name in optional if name in names)]
    return read([*dict.fromkeys(wanted)])


def open_table(path: Path, suffixes: Sequence[str] = TEXT_SUFFIXES) -> tuple[list[str], Reader]:
    """Open a table: return its column names, and a function that reads some of them.

    A .json file is an array, or one object per line like .jsonl.
    """
    suffix = path.suffix.lower()
    if suffix not in suffixes:
        raise unknown(f"suffix of file {path}:", path.suffix, suffixes)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    if not path.stat().st_size:
        raise InputError(f"{path}: the file is empty")
    openers = {".parquet": _open_parquet, ".csv": _open_csv}
    names, read = openers.get(suffix, _open_json)(path)

    def checked(wanted: list[str]) -> Columns:
        for name in wanted:
            if names.count(name) > 1:
                raise InputError(f"{path}: column {name!r} is there twice; it must be there once")
        columns = read(wanted)
        if not len(columns[wanted[0]]):
            raise InputError(f"{path}: the table has no rows; at least one is needed")
        return columns

    return names, checked


def numbers(path: Path, column: str, values: list) -> FloatArray:
    """Convert values to finite floats."""
    array = np.fromiter(map(_number, values), np.float64, len(values))
    refuse(path, column, values, ~np.isfinite(array), "is not a finite number")
    return array


def tokens(path: Path, column: str, values: list, low: int = 1) -> IntArray:
    """Convert values to whole numbers of at least ``low``."""
    array = numbers(path, column, values)
    wrong = (array != np.floor(array)) | (array < low) | (array > MAX_TOKENS)
    refuse(path, column, values, wrong, f"is not a whole number of at least {low}")
    return array.astype(np.int64)


def refuse(path: str | Path, column: str, values: list, wrong: NDArray[np.bool_], why: str) -> None:
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


def _open_csv(path: Path) -> tuple[list[str], Reader]:
    rows = _csv_rows(path)
    header = next(rows, [])

    def read(wanted: list[str]) -> Columns:
        columns: Columns = {name: [] for name in wanted}
        places = [(header.index(name), column) for name, column in columns.items()]
        for number, row in enumerate(rows, 1):
            if len(row) != len(header):
                raise InputError(
                    f"{path}, row {number}: {len(row)} fields for {len(header)} columns"
                )
            for place, column in places:
                column.append(row[place])
        return columns

    return header, read


def _csv_rows(path: Path) -> Iterator[list[str]]:
    csv.field_size_limit(MAX_TOKENS)  # a prompt may be longer than its default of 128 KiB
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        yield from filter(None, reader)
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not valid CSV ({error})") from None


def _open_json(path: Path) -> tuple[list[str], Reader]:
    text = _text(path)
    if path.suffix.lower() == ".json" and text.lstrip().startswith("["):
        rows = [_object(f"{path}, row {i}", row) for i, row in enumerate(_parsed(path, text), 1)]
    else:
        rows = json_lines(str(path), text)
    if not rows:
        raise InputError(f"{path}: the table has no rows; at least one is needed")
    names = [*dict.fromkeys(name for row in rows for name in row)]
    return names, lambda wanted: {name: [row.get(name) for row in rows] for name in wanted}


def json_lines(source: str, text: str) -> list[dict[str, Any]]:
    """Parse a text with one JSON object per line; InputError names source and line."""
    lines = ((f"{source}, line {i}", line) for i, line in enumerate(text.split("\n"), 1))
    return [_object(place, _parsed(place, line)) for place, line in lines if line.strip()]


def _object(place: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{place}: not a JSON object with one key per column")
    return value


def _parsed(place: str | Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: not valid JSON ({error})") from None


def _open_parquet(path: Path) -> tuple[list[str], Reader]:
    from pyarrow import parquet

    def read(wanted: list[str]) -> Columns:
        with _arrow_errors(path), parquet.ParquetFile(path) as file:
            return file.read(columns=wanted).to_pydict()

    with _arrow_errors(path):
        return parquet.read_schema(path).names, read


@contextmanager
def _arrow_errors(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except UnicodeDecodeError:
        raise InputError(f"{path}: a column of text is not in UTF-8") from None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path}: not a readable parquet file ({reason})") from None
