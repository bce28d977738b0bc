"""Figures and tables as files, each with a sidecar that names the runs and code behind it.

Equal pictures give equal bytes (no dates, no program versions, salted ids), and unchanged files
are not rewritten, so that drawing a figure again changes nothing in git.
"""

import hashlib
import io
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ssjf.errors import InputError, unknown
from ssjf.experiments import paths
from ssjf.experiments.paths import made_with
from ssjf.files import whole_file
from ssjf.report import notebookfile, style

PROTOCOLS = {
    "published": "the paper's own simulation, with its quirks",
    "steady-state": "open-loop arrivals at a stated utilisation, warm-up cut off",
    "both": "both protocols side by side",
    "measured": "wall-clock time on the hardware stated",
    "prediction": "quality of the length predictor; nothing is queued",
}
FORMS = {"figures": ("pdf", "svg", "png", "json"), "tables": ("csv", "md", "json")}

_PNG_DPI = 160
_LONGEST_FOLDER_NAME = 60
_NO_METADATA: dict[str, dict[str, None]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
}


class Notebook:
    """Writes a notebook's figures and tables, with the parameters that it was run with.

    ``parameters`` are the notebook's own, by name. If one of them is not the committed default,
    everything goes to results/scratch/NAME/ instead of replacing cited figures. Raises InputError
    for a parameter that the notebook does not have.
    """

    def __init__(self, name: str, /, **parameters: Any) -> None:
        style.use()
        self.parameters = notebookfile.check_parameters(name, parameters)
        self.folder = folder(name, self.parameters)
        if self.folder != paths.results():
            print(f"Not the default parameters: figures and tables go to {_short(self.folder)}")

    def save(
        self,
        fig: Any,
        name: str,
        *,
        caption: str,
        protocol: str,
        runs: pd.DataFrame | Iterable[str],
        notes: Mapping[str, Any] | str | None = None,
    ) -> Path:
        """Write a figure (matplotlib's, or a grid of seaborn's) as pdf, svg, png and json.

        ``runs`` is a frame with a ``run_id`` column, or the ids themselves; ``notes`` are facts
        to read beside the picture. Returns the PDF's path, relative to the repository root if it
        is inside. Raises InputError for an unknown protocol, an unusable name or a frame without
        ``run_id``.
        """
        described = self._sidecar("figure", name, caption, protocol, runs, notes)
        drawn = getattr(fig, "figure", fig)
        drawn.canvas.draw()
        drawn.set_layout_engine("none")  # laid out once, not for every form
        contents = {form: _picture(drawn, form) for form in _NO_METADATA}
        return _short(_publish(self.folder / "figures", name, contents, described))

    def table(
        self,
        frame: pd.DataFrame,
        name: str,
        *,
        caption: str,
        protocol: str,
        runs: pd.DataFrame | Iterable[str],
        notes: Mapping[str, Any] | str | None = None,
    ) -> pd.DataFrame:
        """Write a frame as csv, md and json, and return it for display.

        The CSV holds ten significant digits, the markdown four; an index other than 0…n-1
        becomes columns. Raises InputError as ``save`` does.
        """
        described = self._sidecar("table", name, caption, protocol, runs, notes)
        flat = frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index()
        csv = flat.to_csv(index=False, float_format="%.10g", lineterminator="\n")
        contents = {"csv": csv.encode(), "md": markdown(flat).encode()}
        _publish(self.folder / "tables", name, contents, described)
        return frame

    def _sidecar(self, kind: str, name: str, caption: str, protocol: str, runs: Any, notes: Any):
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
            raise InputError(f"a {kind}'s name is letters, digits, '-', '_' and '.', not {name!r}")
        if protocol not in PROTOCOLS:
            raise unknown("protocol", protocol, PROTOCOLS)
        described = {
            kind: name,
            "caption": caption,
            "protocol": protocol,
            "runs": _run_ids(runs),
            "parameters": self.parameters,
            "notes": notes,
            "made_with": made_with(),
        }
        # Through JSON and back, so that it compares equal to what a later call reads from disk.
        return json.loads(json.dumps(described, default=_plain))


def folder(name: str, parameters: Mapping[str, Any]) -> Path:
    """The folder that a notebook with these parameters writes to: results/ or one under scratch/.

    If ``$SSJF_RESULTS`` moves results elsewhere there is no cited figure to protect.
    """
    defaults = notebookfile.defaults(name)
    other = {key: value for key, value in parameters.items() if value != defaults[key]}
    if not other or paths.results().resolve() != (paths.root() / "results").resolve():
        return paths.results()
    text = "-".join(f"{key}={value}" for key, value in sorted(other.items()))
    short = re.sub(r"[^\w.=,+-]+", "", text)
    if len(short) > _LONGEST_FOLDER_NAME:
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        short = f"{short[: _LONGEST_FOLDER_NAME - 9]}-{digest}"
    return paths.results() / "scratch" / notebookfile.short_name(name) / short


def files(name: str, kind: str, where: Path | None = None) -> list[Path]:
    """The files of one figure or table (``kind``: ``figures`` or ``tables``)."""
    return [(where or paths.results()) / kind / f"{name}.{form}" for form in FORMS[kind]]


def markdown(frame: pd.DataFrame) -> str:
    """Format a frame as a markdown table, floats to four significant digits."""
    rows = [[str(column) for column in frame.columns], ["---"] * frame.shape[1]]
    rows += [[cell(value) for value in row] for row in frame.itertuples(index=False)]
    escaped = ([text.replace("|", "\\|") for text in row] for row in rows)
    return "".join(f"| {' | '.join(row)} |\n" for row in escaped)


def cell(value: Any) -> str:
    """Format one value: four significant digits, a dash for a missing one."""
    if value is None or value is pd.NA or value is pd.NaT:
        return "–"
    if not isinstance(value, float | np.floating):
        return str(value)
    return "–" if math.isnan(value) else f"{float(f'{value:.4g}'):.15g}"


def stable(sidecar: Mapping[str, Any]) -> dict[str, Any]:
    """A sidecar without the part that differs between machines and commits."""
    return {key: value for key, value in sidecar.items() if key != "made_with"}


def _picture(fig: Any, form: str) -> bytes:
    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "ssjf", "pdf.fonttype": 42}):
        fig.savefig(buffer, format=form, dpi=_PNG_DPI, metadata=_NO_METADATA[form])
    return buffer.getvalue()


def _run_ids(runs: pd.DataFrame | Iterable[str]) -> list[str]:
    if isinstance(runs, pd.DataFrame):
        if "run_id" not in runs.columns:
            known = ", ".join(map(str, runs.columns))
            raise InputError(f"runs has no column 'run_id'; its columns: {known}")
        runs = runs["run_id"].unique()
    return sorted({str(run) for run in runs})


def _plain(value: Any) -> Any:
    """For JSON: NumPy scalars and arrays as Python's, anything else as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _publish(
    where: Path, name: str, contents: Mapping[str, bytes], described: Mapping[str, Any]
) -> Path:
    """Write the files of each form and then the sidecar; return the path of the first form.

    Unchanged files keep their bytes (the sidecar its ``made_with``) and are touched.
    """
    where.mkdir(parents=True, exist_ok=True)
    same = [_write(where / f"{name}.{form}", data) for form, data in contents.items()]
    beside = where / f"{name}.json"
    if all(same) and beside.exists() and stable(_read(beside)) == stable(described):
        os.utime(beside)
    else:
        text = json.dumps(described, indent=2, sort_keys=True, ensure_ascii=False)
        _write(beside, f"{text}\n".encode())
    return where / f"{name}.{next(iter(contents))}"


def _write(path: Path, data: bytes) -> bool:
    """Replace a file in one step; return True if it held these bytes already."""
    if path.exists() and path.read_bytes() == data:
        os.utime(path)  # the notebook runner checks that it was written
        return True
    with whole_file(path) as temporary:
        temporary.write_bytes(data)
    return False


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # half a file from elsewhere: as good as none
        return {}


def _short(path: Path) -> Path:
    """The path relative to the repository root, if it is inside."""
    return path.relative_to(paths.root()) if path.is_relative_to(paths.root()) else path
