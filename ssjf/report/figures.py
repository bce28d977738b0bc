"""Figures and tables as files, in print, web and data form.

The same picture gives the same bytes: no dates, no program versions, salted ids.
"""

import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ssjf.experiments import paths
from ssjf.experiments.provenance import made_with
from ssjf.report.sidecar import PROTOCOLS, publish, sidecar, stable

__all__ = [
    "FIGURE_FORMS",
    "PROTOCOLS",
    "TABLE_FORMS",
    "cell",
    "figure_files",
    "made_with",
    "markdown",
    "save",
    "stable",
    "table",
    "table_files",
]

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
    described = sidecar("figure", name, caption, protocol, runs, parameters, notes)
    contents = {form: _picture(fig, form) for form in _NO_METADATA}
    return publish(paths.figures(), name, contents, described)


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
    described = sidecar("table", name, caption, protocol, runs, parameters, notes)
    flat = frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index()
    csv = flat.to_csv(index=False, float_format="%.10g", lineterminator="\n")
    contents = {"csv": csv.encode(), "md": markdown(flat).encode()}
    publish(paths.tables(), name, contents, described)
    return frame


def figure_files(name: str) -> list[Path]:
    """The files of a figure."""
    return [paths.figures() / f"{name}.{form}" for form in FIGURE_FORMS]


def table_files(name: str) -> list[Path]:
    """The files of a table."""
    return [paths.tables() / f"{name}.{form}" for form in TABLE_FORMS]


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
    if not isinstance(value, float | np.floating):
        return str(value)
    return "–" if math.isnan(value) else f"{float(f'{value:.4g}'):.15g}"


def _picture(fig: Any, form: str) -> bytes:
    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "ssjf", "pdf.fonttype": 42}):
        fig.savefig(buffer, format=form, dpi=_PNG_DPI, metadata=_NO_METADATA[form])
    return buffer.getvalue()
