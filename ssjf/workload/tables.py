"""Columns of a table file (.csv, .jsonl, .parquet) and the checks of their values.

A column is a list with one value per data row; rows are counted from 1 in messages, without
the header and blank lines. Whatever is wrong with a file raises InputError naming it.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
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


def read_columns(path: Path, required: Iterable[str], optional: Iterable[str] = ()) -> Columns:
    """Read the required columns and those of the optional ones that are there; at least one row."""
    path = Path(path)
    _check_file(path, ("file", TRACE_SUFFIXES))
    columns = READERS[path.suffix.lower()](path, list(dict.fromkeys(required)), [*optional])
    if not len(next(iter(columns.values()))):
        raise InputError(f"{path}: the table has no rows; at least one is needed")
    return columns


def open_table(path: Path) -> tuple[list[str], Callable[[list[str]], Columns]]:
    """The names of the columns of a file of texts, and a function that reads some of them.

    Files are .parquet, .csv, .jsonl and .json (an array, or one object a line).
    """
    _check_file(path, ("text file", TEXT_SUFFIXES))
    if not path.stat().st_size:
        raise InputError(f"{path}: the file is empty")
    suffix = path.suffix.lower()
    if suffix in (".parquet", ".csv"):
        names = _parquet_names(path) if suffix == ".parquet" else _csv_names(path)
        return names, lambda wanted: read_columns(path, wanted)
    rows = [*_json_rows(path)]
    if not rows:
        raise InputError(f"{path}: the table has no rows; at least one is needed")
    names = [*dict.fromkeys(name for row in rows for name in row)]
    return names, lambda wanted: {name: [row.get(name) for row in rows] for name in wanted}


def _check_file(path: Path, allowed: tuple[str, tuple[str, ...]]) -> None:
    kind, suffixes = allowed
    if path.suffix.lower() not in suffixes:
        raise unknown(f"suffix of {kind} {path}:", path.suffix, suffixes)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")


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


def _pick(path: Path, names: list[str], required: list[str], optional: list[str]) -> list[str]:
    for name in required:
        if name not in names:
            raise InputError(
                f"{path}: column {name!r} is missing; found: {', '.join(names) or 'none'}"
            )
    wanted = [*required, *(name for name in optional if name in names)]
    for name in wanted:
        if names.count(name) > 1:
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


def _csv_names(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return next(csv.reader(file), [])
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"{path}: the file is not a table of text in UTF-8") from None


def _read_jsonl(path: Path, required: list[str], optional: list[str]) -> Columns:
    rows = [*_json_rows(path)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    wanted = _pick(path, names, required, optional) if rows else required
    return {name: [row.get(name) for row in rows] for name in wanted}


def _json_rows(path: Path) -> Iterator[dict]:
    """The rows of a file with one object a line, or (.json) with one array of them."""
    text = _text(path)
    if path.suffix.lower() == ".json" and text.lstrip().startswith("["):
        places = [(f"{path}, row {i}", row) for i, row in enumerate(_parsed(str(path), text), 1)]
    else:
        lines = ((f"{path}, line {i}", line) for i, line in enumerate(text.split("\n"), 1))
        places = [(place, _parsed(place, line)) for place, line in lines if line.strip()]
    for place, row in places:
        if not isinstance(row, dict):
            raise InputError(f"{place}: not a JSON object with one key per column")
        yield row


def _parsed(place: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: not valid JSON ({error})") from None


def _parquet_names(path: Path) -> list[str]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.read_schema(path).names
    except (pa.ArrowException, OSError) as error:
        raise _no_parquet(path, error) from None


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
        raise _no_parquet(path, error) from None


def _no_parquet(path: Path, error: Exception) -> InputError:
    reason = str(error).partition("\n")[0]
    return InputError(f"{path}: not a readable parquet file ({reason})")


READERS = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
