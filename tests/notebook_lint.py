"""What a notebook may hold: claim, parameters, load, reshape, draw, save; no program.

The rules read the committed file with ``ast``; nothing is run.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

from ssjf.report.notebooks import KERNEL

MOST_CODE_CELLS = 9
MOST_LINES = 40  # of code in a cell

_LOGIC: dict[type[ast.AST], str] = {
    ast.FunctionDef: "def",
    ast.AsyncFunctionDef: "async def",
    ast.ClassDef: "class",
    ast.While: "while loop",
    ast.Try: "try",
    ast.TryStar: "try",
}
# report.Notebook, ssjf.experiments and the command line do what these are misused for
_CALLS = {
    *("savefig", "get_ipython", "run_line_magic", "run_cell_magic", "system"),
    *("open", "read_csv", "read_parquet", "read_json", "to_csv", "to_parquet", "to_json"),
}
_MODULES = {"pip", "subprocess", "vllm", "os", "pathlib", "shutil", "socket", "urllib", "requests"}


def lint(path: str | Path) -> list[str]:
    """The rules a notebook breaks, one sentence each; empty for a clean notebook."""
    book = nbformat.read(path, as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    found = [*_page(book, code)]
    for number, cell in enumerate(code, 1):
        found += [f"code cell {number}: {broken}" for broken in _cell(cell)]
    return found


def _page(book: Any, code: list[Any]) -> Iterator[str]:
    if not book.cells or book.cells[0].cell_type != "markdown":
        yield "the first cell must be markdown and state the claim"
    if len(code) > MOST_CODE_CELLS:
        yield f"{len(code)} code cells are more than {MOST_CODE_CELLS}"
    tagged = sum("parameters" in cell.metadata.get("tags", []) for cell in code)
    if tagged != 1:
        yield f"{tagged} code cells are tagged 'parameters', not one"
    kernel = book.metadata.get("kernelspec", {}).get("name")
    if kernel != KERNEL:
        yield f"the kernel must be named {KERNEL!r}, not {kernel!r}"
    if any("papermill" in part.metadata for part in (book, *book.cells)):
        yield "papermill's metadata must be stripped"
    yield from _promise(book.metadata.get("ssjf", {}))
    for cell in code:
        if "parameters" in cell.metadata.get("tags", []):
            yield from _parameters(cell.source, book.metadata.get("ssjf", {}).get("defaults"))


def _promise(promise: dict[str, Any]) -> Iterator[str]:
    if not isinstance(promise.get("title"), str):
        yield "the metadata lacks ssjf.title"
    for kind in ("figures", "tables"):
        if not isinstance(promise.get(kind), list):
            yield f"the metadata lacks ssjf.{kind}, a list of names"


def _parameters(source: str, defaults: Any) -> Iterator[str]:
    """Each is annotated and commented, for ``papermill --help-notebook``; the defaults match."""
    statements = ast.parse(source).body
    for statement, line in zip(statements, source.splitlines(), strict=False):
        if not isinstance(statement, ast.AnnAssign) or "  # " not in line:
            yield f"a parameter is written NAME: TYPE = VALUE  # what it is, not {line!r}"
            return
    values = {node.target.id: ast.literal_eval(node.value) for node in statements}
    if values != defaults:
        yield "the parameters are not those of ssjf.defaults in the metadata"


def _cell(cell: Any) -> Iterator[str]:
    if cell.outputs or cell.execution_count is not None:
        yield "outputs and execution counts must be stripped"
    try:
        tree = ast.parse(cell.source)
    except SyntaxError as error:
        line = (error.text or "").strip()
        yield f"not plain Python (a %magic or !shell command?): {line!r}"
        return
    lines = [line for line in cell.source.splitlines() if line.strip()]
    if len(lines) > MOST_LINES:
        yield f"{len(lines)} lines are more than {MOST_LINES}"
    for node in ast.walk(tree):
        if broken := _node(node):
            yield f"line {getattr(node, 'lineno', 1)}: {broken}"


def _node(node: ast.AST) -> str | None:
    if kind := _LOGIC.get(type(node)):
        return f"{kind} belongs in the library"
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr):
        return "a named lambda belongs in the library" if _is_lambda(node.value) else None
    if isinstance(node, ast.Call):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        return f"{name}() is not for notebooks" if name in _CALLS else None
    modules = {name.partition(".")[0] for name in _imported(node)} & _MODULES
    return f"{modules.pop()} must not be imported in a notebook" if modules else None


def _is_lambda(value: ast.AST | None) -> bool:
    return isinstance(value, ast.Lambda)


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []
