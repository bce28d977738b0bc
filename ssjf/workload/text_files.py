"""Files of texts as columns: .parquet, .csv, .jsonl and .json (an array, or one object a line).

Whatever is wrong with a file raises InputError naming it.
"""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ssjf.errors import InputError, unknown
from ssjf.workload.tables import Columns, read_columns

Read = Callable[[list[str]], Columns]


def open_columns(path: Path) -> tuple[list[str], Read]:
    """The names of a file's columns, and what reads those asked for: a list of values each."""
    if path.suffix.lower() not in OPENERS:
        raise unknown(f"suffix of text file {path}:", path.suffix, OPENERS)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    if not path.stat().st_size:
        raise InputError(f"{path}: the file is empty")
    return OPENERS[path.suffix.lower()](path)


def _open_parquet(path: Path) -> tuple[list[str], Read]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        names = parquet.read_schema(path).names
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path}: not a readable parquet file ({reason})") from None
    return names, lambda wanted: read_columns(path, wanted)


def _open_csv(path: Path) -> tuple[list[str], Read]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = next(csv.reader(file), [])
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"{path}: the file is not a table of text in UTF-8") from None
    return names, lambda wanted: read_columns(path, wanted)


def _open_json(path: Path) -> tuple[list[str], Read]:
    rows = [*_json_rows(path)]
    if not rows:
        raise InputError(f"{path}: the table has no rows; at least one is needed")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise InputError(f"{path}, row {number}: not a JSON object with one key per column")
    names = [*dict.fromkeys(name for row in rows for name in row)]
    return names, lambda wanted: {name: [row.get(name) for row in rows] for name in wanted}


def _json_rows(path: Path) -> Iterator[Any]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: the file is not text in UTF-8") from None
    if text.lstrip().startswith("["):
        yield from _parsed(str(path), text)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _parsed(f"{path}, line {number}", line)


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON ({error})") from None


OPENERS = {
    ".parquet": _open_parquet,
    ".csv": _open_csv,
    ".jsonl": _open_json,
    ".json": _open_json,
}
