"""Raw runs on disk: a folder per run, named by the hash of its specification, never changed.

    results/raw/EXPERIMENT/RUN_ID/{rows.parquet, spec.json, env.json}

A run is written under a temporary name and renamed, so that a folder that exists is whole.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ssjf.errors import InputError
from ssjf.experiments import paths
from ssjf.experiments.provenance import environment
from ssjf.experiments.run_rows import check_rows
from ssjf.experiments.specs import Run
from ssjf.experiments.workloads import Table
from ssjf.files import sha256, whole_file, whole_folder

Spec = Mapping[str, Any]


def canonical(spec: Spec | Table) -> str:
    """The one text of a specification: sorted keys, no spaces."""
    values = spec.as_json() if isinstance(spec, Table) else spec
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


def digest(spec: Spec | Table) -> str:
    """The name of a specification: 16 hex digits of the SHA-256 of its canonical text."""
    return hashlib.sha256(canonical(spec).encode()).hexdigest()[:16]


def run_folder(spec: Run) -> Path:
    """Where the run of a specification lies."""
    return paths.raw() / spec.experiment / digest(spec)


def is_finished(spec: Run) -> bool:
    """Has this run been done?"""
    return run_folder(spec).is_dir()


def save(spec: Run, rows: pd.DataFrame, seconds: float) -> Path:
    """Write a finished run, whole or not at all; an existing one is left as it is.

    ``rows.attrs["environment"]``, if there, joins the record of where the run was made.
    """
    folder = run_folder(spec)
    if folder.is_dir():
        return folder
    check_rows(rows, spec.detail, str(folder))
    with whole_folder(folder) as temporary:
        _write(temporary, spec, rows, seconds)
    return folder


def _write(folder: Path, spec: Run, rows: pd.DataFrame, seconds: float) -> None:
    write_parquet(rows, folder / "rows.parquet")
    env = (
        environment()
        | rows.attrs.get("environment", {})
        | {
            "seconds": round(seconds, 3),
            "rows_sha256": sha256(folder / "rows.parquet"),
        }
    )
    (folder / "spec.json").write_text(json.dumps(spec.as_json(), indent=1, sort_keys=True) + "\n")
    (folder / "env.json").write_text(json.dumps(env, indent=1, sort_keys=True) + "\n")


def load(spec: Run) -> pd.DataFrame:
    """The rows of a finished run, with its ``run_id``; what was altered by hand is refused."""
    folder = run_folder(spec)
    if not folder.is_dir():
        raise InputError(
            f"run {digest(spec)} of {spec.experiment} has not been made; "
            f"run `ssjf run {spec.experiment}`"
        )
    verify(folder)
    return pd.read_parquet(folder / "rows.parquet").assign(run_id=folder.name)


def verify(folder: Path) -> dict[str, Any]:
    """The specification of a stored run; InputError if any of its files was altered."""
    mend = f"delete the folder {folder} and run it again"
    try:
        spec = json.loads((folder / "spec.json").read_text())
        env = json.loads((folder / "env.json").read_text())
        rows = folder / "rows.parquet"
        if digest(spec) != folder.name:
            raise InputError(
                f"{folder / 'spec.json'} was edited: it is not run {folder.name}; {mend}"
            )
        if sha256(rows) != env["rows_sha256"]:
            raise InputError(f"{rows} is truncated or was altered; {mend}")
    except (OSError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{folder} is not a whole run ({error}); {mend}") from None
    return spec


def stored(experiment: str) -> list[Path]:
    """The folders of all runs of an experiment that are on disk."""
    return sorted(p for p in (paths.raw() / experiment).glob("[0-9a-f]*") if p.is_dir())


def sweep_temporary(experiments: Iterable[str]) -> None:
    """Remove what killed runs of these experiments left half-written."""
    for experiment in experiments:
        for folder in (paths.raw() / experiment).glob(".tmp-*"):
            shutil.rmtree(folder, ignore_errors=True)
    for file in paths.workloads().glob(".*.tmp"):
        file.unlink(missing_ok=True)


def write_parquet(rows: pd.DataFrame, path: Path) -> None:
    """Parquet (zstd), the same bytes for the same rows, under a temporary name until whole."""
    table = pa.Table.from_pandas(rows, preserve_index=False).replace_schema_metadata(None)
    with whole_file(path) as temporary:
        pq.write_table(table, temporary, **_encoding(table))


def _encoding(table: pa.Table) -> dict[str, Any]:
    """Metrics (float32) hardly repeat: split into byte planes they compress a quarter better."""
    metrics = [field.name for field in table.schema if field.type == pa.float32()]
    return {
        "compression": "zstd",
        "compression_level": 9,
        "write_statistics": False,
        "use_dictionary": [name for name in table.column_names if name not in metrics],
        "column_encoding": dict.fromkeys(metrics, "BYTE_STREAM_SPLIT"),
    }
