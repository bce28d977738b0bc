"""Notebooks as files: names, metadata and parameters. Nothing is run here.

Parameters are read with ``ast`` from the one cell tagged ``parameters``,
because papermill only warns about a misspelt name and accepts any type.
"""

import ast
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssjf.errors import InputError, unknown
from ssjf.experiments import paths


class NotebookError(InputError):
    """A notebook did not do what it promises; the message names notebook, cell and reason."""


def names() -> list[str]:
    """Names of the notebooks (without .ipynb) in reading order."""
    return sorted(path.stem for path in paths.notebooks().glob("*.ipynb"))


def short_name(notebook: str | Path) -> str:
    """A notebook's name without folder, number and extension: ``rate_sweep``."""
    return re.sub(r"^\d+_", "", Path(notebook).name.removesuffix(".ipynb"))


def find(notebook: str | Path) -> Path:
    """Find a notebook by its path or its name, with or without its number.

    Raises InputError, which lists the known names.
    """
    path = Path(notebook)
    if path.suffix == ".ipynb" and path.is_file():
        return path
    wanted = path.name.removesuffix(".ipynb")
    for name in names():
        if wanted in (name, short_name(name)):
            return paths.notebooks() / f"{name}.ipynb"
    raise unknown("notebook", str(notebook), names())


def about(path: str | Path) -> dict[str, Any]:
    """The ``ssjf`` entry of a notebook's metadata; empty where it has none.

    Read as plain JSON: importing nbformat takes longer than some notebooks do.
    """
    try:
        metadata = json.loads(Path(path).read_text(encoding="utf-8"))["metadata"]
        return dict(metadata.get("ssjf", {}))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise NotebookError(f"{Path(path).name} is not a notebook: {first_line(error)}") from None


def defaults(path: str | Path) -> dict[str, Any]:
    """The parameters behind the cited figures.

    They are kept in the metadata, because a user may save other values in the cell.
    """
    path = find(path)
    return about(path).get("defaults") or parameters(path)


def parameters(path: str | Path) -> dict[str, Any]:
    """The notebook's parameters with the values in their cell.

    Raises InputError unless exactly one cell is tagged ``parameters`` and it only assigns
    literals to names.
    """
    path = find(path)
    tagged = [cell for cell in code(read(path)) if "parameters" in tags(cell)]
    if len(tagged) != 1:
        raise InputError(f"{path.name} must have one cell tagged 'parameters', not {len(tagged)}")
    try:
        return dict(_literal(statement) for statement in ast.parse(tagged[0].source).body)
    except (SyntaxError, ValueError):
        reason = "must hold nothing but names set to plain literals"
        raise InputError(f"the parameters cell of {path.name} {reason}") from None


def check_parameters(path: str | Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Check parameters against the defaults; return them, ints turned into floats where needed.

    Raises InputError for an unknown name, listing the known ones, and for a value whose type is
    not the default's (items of a list must have the type of the default's items).
    """
    known = defaults(path)
    for name, value in given.items():
        if name not in known:
            raise unknown(f"parameter of {find(path).name}", name, known)
        if not _fits(value, known[name]):
            wanted = f"of the type of {known[name]!r}, not {value!r}"
            raise InputError(f"parameter {name!r} of {find(path).name} must be {wanted}")
    floats = {name for name, default in known.items() if isinstance(default, float)}
    return {name: float(value) if name in floats else value for name, value in given.items()}


def read(path: Path) -> Any:
    """Read a notebook with nbformat; NotebookError if the file is not one."""
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, KeyError) as error:
        raise NotebookError(f"{path.name} is not a notebook: {first_line(error)}") from None


def code(book: Any) -> list[Any]:
    """Its code cells."""
    return [cell for cell in book.cells if cell.cell_type == "code"]


def first_line(message: object) -> str:
    """The first line of an error message."""
    lines = str(message).strip().strip("-").strip().splitlines()
    return lines[0] if lines else "no message"


def tags(cell: Any) -> list[str]:
    """A cell's tags."""
    return cell.metadata.get("tags", [])


def _literal(statement: ast.stmt) -> tuple[str, Any]:
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return name, ast.literal_eval(value)
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            return name, ast.literal_eval(value)
    raise ValueError("not a name set to a literal")


def _fits(value: Any, default: Any) -> bool:
    if default is None:
        return True
    if isinstance(default, float):
        return type(value) in (int, float)
    if isinstance(default, list) and default and isinstance(value, list):
        return all(_fits(item, default[0]) for item in value)
    return type(value) is type(default)
