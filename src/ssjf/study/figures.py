"""Figures and tables as files, each with a sidecar that says which runs and code made it.

The same picture gives the same bytes: no dates, no program versions, salted ids. What changes
from machine to machine (commit, versions) stands under ``made_with`` in the sidecar, and a file
whose content is unchanged keeps it, so that making a figure again changes nothing in git.
"""

import io
import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from ssjf.errors import InputError, unknown
from ssjf.study import paths

PROTOCOLS = {
    "published": "the paper's own simulation, with its quirks",
    "steady-state": "open-loop arrivals at a stated utilisation, warm-up cut off",
    "both": "both protocols side by side",
    "measured": "wall-clock time on the hardware stated",
    "prediction": "quality of the length predictor; nothing is queued",
}
FIGURE_FORMS = ("pdf", "svg", "png", "json")
TABLE_FORMS = ("csv", "md", "json")

_PNG_DPI = 160
_NO_METADATA: dict[str, dict[str, None]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
}


def save(
    fig: Any,
    name: str,
    *,
    caption: str,
    protocol: str,
    runs: pd.DataFrame | Iterable[str],
    parameters: Mapping[str, Any] | None = None,
    notes: Mapping[str, Any] | str | None = None,
) -> Path:
    """Write a matplotlib figure as results/figures/NAME.pdf, .svg, .png and .json.

    ``runs`` is a frame with a ``run_id`` column, or the ids themselves; ``notes`` is what must
    be read beside the picture (the queue depth beside a gain, say). Returns the PDF's path,
    from the repository root where it lies inside. Raises InputError for an unknown protocol,
    an unusable name or a frame without ``run_id``.
    """
    sidecar = _sidecar("figure", name, caption, protocol, runs, parameters, notes)
    contents = {form: _picture(fig, form) for form in _NO_METADATA}
    return _publish(paths.figures(), name, contents, sidecar)


def table(
    frame: pd.DataFrame,
    name: str,
    *,
    caption: str,
    protocol: str,
    runs: pd.DataFrame | Iterable[str],
    parameters: Mapping[str, Any] | None = None,
    notes: Mapping[str, Any] | str | None = None,
) -> pd.DataFrame:
    """Write a frame as results/tables/NAME.csv, .md and .json, and return it for display.

    The CSV holds ten significant digits, the markdown four; an index other than 0…n-1
    becomes columns. Raises InputError as ``save`` does.
    """
    sidecar = _sidecar("table", name, caption, protocol, runs, parameters, notes)
    flat = frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index()
    csv = flat.to_csv(index=False, float_format="%.10g", lineterminator="\n")
    contents = {"csv": csv.encode(), "md": markdown(flat).encode()}
    _publish(paths.tables(), name, contents, sidecar)
    return frame


def figure_files(name: str) -> list[Path]:
    """The files of a figure."""
    return [paths.figures() / f"{name}.{form}" for form in FIGURE_FORMS]


def table_files(name: str) -> list[Path]:
    """The files of a table."""
    return [paths.tables() / f"{name}.{form}" for form in TABLE_FORMS]


def stable(sidecar: Mapping[str, Any]) -> dict[str, Any]:
    """A sidecar without what differs between machines and commits."""
    return {key: value for key, value in sidecar.items() if key != "made_with"}


def made_with() -> dict[str, Any]:
    """The commit of the repository (None where unknown), and versions."""
    commit = _git("rev-parse", "HEAD")
    # Results are what is being written: they must not make the code that writes them dirty.
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results")
    versions = {name: metadata.version(name) for name in ("numpy", "matplotlib", "ssjf")}
    dirty = bool(changes) if commit else None
    return {"commit": commit, "dirty": dirty, "python": platform.python_version(), **versions}


def markdown(frame: pd.DataFrame) -> str:
    """A frame as a markdown table, floats to four significant digits."""
    rows = [[str(column) for column in frame.columns], ["---"] * frame.shape[1]]
    rows += [[cell(value) for value in row] for row in frame.itertuples(index=False)]
    escaped = ([text.replace("|", "\\|") for text in row] for row in rows)
    return "".join(f"| {' | '.join(row)} |\n" for row in escaped)


def cell(value: Any) -> str:
    """One value as a reader wants it: four significant digits, a dash for what is missing."""
    if value is None or value is pd.NA or value is pd.NaT:
        return "–"
    if not isinstance(value, float):
        return str(value)
    return "–" if math.isnan(value) else f"{float(f'{value:.4g}'):.15g}"


def _sidecar(
    kind: str,
    name: str,
    caption: str,
    protocol: str,
    runs: pd.DataFrame | Iterable[str],
    parameters: Mapping[str, Any] | None,
    notes: Mapping[str, Any] | str | None,
) -> dict[str, Any]:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise InputError(f"a {kind}'s name is letters, digits, '-', '_' and '.', not {name!r}")
    if protocol not in PROTOCOLS:
        raise unknown("protocol", protocol, PROTOCOLS)
    sidecar = {
        kind: name,
        "caption": caption,
        "protocol": protocol,
        "runs": _run_ids(runs),
        "parameters": dict(parameters or {}),
        "notes": notes,
        "made_with": made_with(),
    }
    # Through JSON and back, so that it compares equal to what a later call reads from disk.
    return json.loads(json.dumps(sidecar, default=_plain))


def _run_ids(runs: pd.DataFrame | Iterable[str]) -> list[str]:
    if isinstance(runs, pd.DataFrame):
        if "run_id" not in runs.columns:
            known = ", ".join(map(str, runs.columns))
            raise InputError(f"runs has no column 'run_id'; its columns: {known}")
        runs = runs["run_id"].unique()
    return sorted({str(run) for run in runs})


def _plain(value: Any) -> Any:
    """NumPy scalars and arrays as Python's; anything else by its text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _picture(fig: Any, form: str) -> bytes:
    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "ssjf", "pdf.fonttype": 42}):
        fig.savefig(buffer, format=form, dpi=_PNG_DPI, metadata=_NO_METADATA[form])
    return buffer.getvalue()


def _publish(folder: Path, name: str, contents: dict[str, bytes], sidecar: dict) -> Path:
    """Write contents and then the sidecar; unchanged files keep their bytes, and are touched."""
    folder.mkdir(parents=True, exist_ok=True)
    same = all(_write(folder / f"{name}.{form}", data) for form, data in contents.items())
    described = folder / f"{name}.json"
    if same and described.exists() and stable(_read(described)) == stable(sidecar):
        os.utime(described)
    else:
        text = json.dumps(sidecar, indent=2, sort_keys=True, ensure_ascii=False)
        _write(described, f"{text}\n".encode())
    first = folder / f"{name}.{next(iter(contents))}"
    return first.relative_to(paths.root()) if first.is_relative_to(paths.root()) else first


def _write(path: Path, data: bytes) -> bool:
    """Replace a file in one step; True where it held these bytes already."""
    if path.exists() and path.read_bytes() == data:
        os.utime(path)  # fresh all the same: the notebook runner checks it
        return True
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    partial.write_bytes(data)
    os.replace(partial, path)
    return False


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # half a file from elsewhere: as good as none
        return {}


def _git(*arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(paths.root()), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
