"""Putting a figure or table into results/, with a sidecar saying which runs and code made it.

What changes from machine to machine (commit, versions) stands under ``made_with``, and a file
whose content is unchanged keeps it, so that making a figure again changes nothing in git.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ssjf.errors import InputError, unknown
from ssjf.experiments import paths
from ssjf.experiments.provenance import made_with
from ssjf.files import whole_file

PROTOCOLS = {
    "published": "the paper's own simulation, with its quirks",
    "steady-state": "open-loop arrivals at a stated utilisation, warm-up cut off",
    "both": "both protocols side by side",
    "measured": "wall-clock time on the hardware stated",
    "prediction": "quality of the length predictor; nothing is queued",
}


def stable(sidecar: Mapping[str, Any]) -> dict[str, Any]:
    """A sidecar without what differs between machines and commits."""
    return {key: value for key, value in sidecar.items() if key != "made_with"}


def sidecar(
    kind: str,
    name: str,
    caption: str,
    protocol: str,
    runs: pd.DataFrame | Iterable[str],
    parameters: Mapping[str, Any] | None,
    notes: Mapping[str, Any] | str | None,
) -> dict[str, Any]:
    """What is said of a figure or table beside it; InputError for what cannot be."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise InputError(f"a {kind}'s name is letters, digits, '-', '_' and '.', not {name!r}")
    if protocol not in PROTOCOLS:
        raise unknown("protocol", protocol, PROTOCOLS)
    described = {
        kind: name,
        "caption": caption,
        "protocol": protocol,
        "runs": _run_ids(runs),
        "parameters": dict(parameters or {}),
        "notes": notes,
        "made_with": made_with(),
    }
    # Through JSON and back, so that it compares equal to what a later call reads from disk.
    return json.loads(json.dumps(described, default=_plain))


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


def publish(
    folder: Path, name: str, contents: Mapping[str, bytes], described: Mapping[str, Any]
) -> Path:
    """Write contents by form and then their sidecar; returns the path of the first form.

    Unchanged files keep their bytes (the sidecar its ``made_with``) and are touched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    same = [_write(folder / f"{name}.{form}", data) for form, data in contents.items()]
    beside = folder / f"{name}.json"
    if all(same) and beside.exists() and stable(_read(beside)) == stable(described):
        os.utime(beside)
    else:
        text = json.dumps(described, indent=2, sort_keys=True, ensure_ascii=False)
        _write(beside, f"{text}\n".encode())
    first = folder / f"{name}.{next(iter(contents))}"
    return first.relative_to(paths.root()) if first.is_relative_to(paths.root()) else first


def _write(path: Path, data: bytes) -> bool:
    """Replace a file in one step; True where it held these bytes already."""
    if path.exists() and path.read_bytes() == data:
        os.utime(path)  # fresh all the same: the notebook runner checks it
        return True
    with whole_file(path) as temporary:
        temporary.write_bytes(data)
    return False


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # half a file from elsewhere: as good as none
        return {}
