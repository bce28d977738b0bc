"""The strict notebook runner: papermill, which passes no notebook that failed or skipped work.

A notebook declares its output in its metadata, under ``ssjf``: ``title``, ``defaults`` (of its
parameters), ``figures`` and ``tables`` (names under results/). A run passes only if every code
cell ran without error and this run wrote every declared file.
"""

import ast
import os
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

from ssjf.errors import InputError
from ssjf.experiments import paths
from ssjf.report import figures, notebookfile
from ssjf.report.notebookfile import (
    NotebookError,
    check_parameters,
    code,
    find,
    first_line,
    read,
    tags,
)

KERNEL = "python3"  # the one name every installation of ipykernel has
_START_TIMEOUT_SECONDS = 600
_MESSAGE_TIMEOUT_SECONDS = 60  # nbclient's four fail runs on a busy machine
_FIRST_TRY_SECONDS = 150  # for a cell; ipykernel 7 now and then loses a reply: then once more


class Result(NamedTuple):
    """A notebook that ran: its name, wall-clock seconds and the executed copy."""

    name: str
    seconds: float
    output_path: Path


def run(
    path: str | Path, given: Mapping[str, Any] | None = None, timeout_seconds: int = 600
) -> Result:
    """Execute a notebook into results/executed/, from the repository root.

    With other parameters than the defaults, it and its output go to results/scratch/.
    ``timeout_seconds`` is per cell. Raises InputError for parameters that do not fit and
    NotebookError if a cell fails or is never reached, or a declared file is not written;
    results/executed/ is unchanged then.
    """
    source = find(path)
    values = check_parameters(source, given or {})
    folder = figures.folder(source.stem, values)
    before = {file: _written_at(file) for file in _promised(source, folder)}
    apart = folder != paths.results()
    output = (folder if apart else paths.results() / "executed") / source.name
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{source.stem}.{os.getpid()}.tmp.ipynb")
    started = time.perf_counter()
    try:
        if not _ran(source, partial, values, min(_FIRST_TRY_SECONDS, timeout_seconds)):
            _execute(source, partial, values, timeout_seconds)
        _check_promises(source.name, before)
        os.replace(partial, output)
    finally:
        partial.unlink(missing_ok=True)
    return Result(source.stem, time.perf_counter() - started, output)


def parse(given: Iterable[str]) -> dict[str, Any]:
    """Parse ``KEY=VALUE`` pairs; a value is a Python literal, or else text."""
    values = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"parameter {pair!r} is not KEY=VALUE")
        try:
            values[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            values[key] = value
    return values


def run_all(
    names: Iterable[str | Path] | None = None, jobs: int = 2, timeout_seconds: int = 600
) -> list[Result]:
    """Run notebooks (all by default), ``jobs`` at a time; a failure does not stop the others.

    Raises InputError for an unknown name before anything runs, and, after all have run, one
    NotebookError that names every notebook that failed.
    """
    from tqdm import tqdm

    from ssjf.report import kernels

    if jobs < 1:
        raise InputError(f"jobs must be 1 or more, not {jobs}")
    chosen = notebookfile.names() if names is None else names
    sources = [find(notebook) for notebook in chosen]
    results, failures = {}, []
    # A thread waits for its notebook, whose kernel is a process.
    with ThreadPoolExecutor(jobs) as pool, kernels.ended_on_interrupt(pool):
        futures = {pool.submit(run, source, None, timeout_seconds): source for source in sources}
        for future in tqdm(as_completed(futures), "notebooks", len(futures), unit="notebook"):
            try:
                results[futures[future]] = future.result()
            except InputError as error:
                failures.append(str(error))
    if failures:
        summary = f"{len(failures)} of {len(sources)} notebooks failed"
        raise NotebookError(f"{summary}: {'; '.join(sorted(failures))}")
    return [results[source] for source in sources]


def _ran(source: Path, partial: Path, values: dict[str, Any], timeout_seconds: int) -> bool:
    """Execute a notebook; return False if a cell took too long or its kernel's reply was lost."""
    from nbclient.exceptions import CellTimeoutError

    try:
        _execute(source, partial, values, timeout_seconds)
    except NotebookError as error:
        if not isinstance(error.__cause__, CellTimeoutError):
            raise
        return False
    return True


def _execute(source: Path, partial: Path, values: dict[str, Any], timeout_seconds: int) -> None:
    """Run every cell, writing to ``partial``; any failure is a NotebookError."""
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    from ssjf.report.kernels import Kernels

    trouble: Exception | None = None
    try:
        papermill.execute_notebook(
            str(source.resolve()),
            str(partial.resolve()),
            parameters=values,
            kernel_name=KERNEL,
            kernel_manager_class=Kernels,
            language="python",
            progress_bar=False,
            start_timeout=_START_TIMEOUT_SECONDS,
            execution_timeout=timeout_seconds,
            iopub_timeout=_MESSAGE_TIMEOUT_SECONDS,
            extra_arguments=["--log-level=CRITICAL"],  # the notebook itself reports failures
        )
    except papermill.PapermillExecutionError as error:
        trouble = error
    except (CellTimeoutError, DeadKernelError, RuntimeError) as error:
        # RuntimeError is how jupyter_client says that a kernel never answered.
        message = f"{type(error).__name__}: {first_line(error)}"
        raise NotebookError(f"{source.name}, {_last_started(partial)}: {message}") from error
    _check_cells(source.name, read(partial))
    if trouble is not None:
        raise NotebookError(f"{source.name} failed: {first_line(trouble)}") from trouble


def _check_cells(name: str, executed: Any) -> None:
    """Raise unless every code cell ran and none failed; ``sys.exit()`` counts as a failure."""
    cells = _written(executed)
    for number, cell in enumerate(cells, 1):
        for output in cell.outputs:
            if output.output_type == "error":
                line = f"{output.ename}: {first_line(output.evalue)}"
                raise NotebookError(f"{name}, code cell {number}: {line}")
    for number, cell in enumerate(cells, 1):
        if cell.source.strip() and cell.execution_count is None:
            raise NotebookError(f"{name}, code cell {number}: it was never run")


def _check_promises(name: str, before: Mapping[Path, int | None]) -> None:
    stale = [file.name for file, written in before.items() if _written_at(file) in (written, None)]
    if stale:
        raise NotebookError(f"{name} promises {', '.join(stale)} but did not write it")


def _promised(path: Path, folder: Path) -> list[Path]:
    promise = notebookfile.about(path)
    return [
        file
        for kind in figures.FORMS
        for name in promise.get(kind, [])
        for file in figures.files(name, kind, folder)
    ]


def _written_at(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None


def _last_started(partial: Path) -> str:
    if not partial.exists():
        return "before its first cell"
    started = [
        number
        for number, cell in enumerate(_written(read(partial)), 1)
        if cell.metadata.get("papermill", {}).get("status", "pending") != "pending"
    ]
    return f"code cell {started[-1]}" if started else "before its first cell"


def _written(book: Any) -> list[Any]:
    """The code cells of the author, without the one that papermill adds for parameters."""
    return [cell for cell in code(book) if "injected-parameters" not in tags(cell)]
