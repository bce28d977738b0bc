"""Raw runs on disk: one folder per run, named by the hash of its specification, never changed.

    results/raw/EXPERIMENT/RUN_ID/{rows.parquet, spec.json, env.json}

A run is written under a temporary name and then renamed, so that an existing folder is complete.
"""

import hashlib
import io
import itertools
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ssjf.errors import InputError
from ssjf.experiments import paths
from ssjf.experiments.paths import environment
from ssjf.experiments.specs import Run
from ssjf.experiments.tables import Table
from ssjf.files import sha256, whole_file, whole_folder

Spec = Mapping[str, Any]
STAMPS = ("scheduled_at", "first_token_at", "finished_at")


def canonical(spec: Spec | Table) -> str:
    """The canonical JSON of a specification: sorted keys, no spaces."""
    values = spec.as_json() if isinstance(spec, Table) else spec
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


def digest(spec: Spec | Table) -> str:
    """The name of a specification: 16 hex digits of the SHA-256 of its canonical JSON."""
    return hashlib.sha256(canonical(spec).encode()).hexdigest()[:16]


def run_folder(spec: Run) -> Path:
    """The folder of a run."""
    return paths.raw() / spec.experiment / digest(spec)


def is_finished(spec: Run) -> bool:
    """Has this run been done?"""
    return run_folder(spec).is_dir()


def save(spec: Run, rows: pd.DataFrame, seconds: float) -> Path:
    """Write a finished run, whole or not at all; an existing one is not changed.

    ``rows.attrs["environment"]``, if present, is added to env.json.
    """
    folder = run_folder(spec)
    if folder.is_dir():
        return folder
    check_rows(rows, spec.detail, str(folder))
    with whole_folder(folder) as temporary:
        write_parquet(rows, temporary / "rows.parquet")
        env = environment() | rows.attrs.get("environment", {}) | {"seconds": round(seconds, 3)}
        env["rows_sha256"] = sha256(temporary / "rows.parquet")
        for name, values in (("spec", spec.as_json()), ("env", env)):
            text = json.dumps(values, indent=1, sort_keys=True) + "\n"
            (temporary / f"{name}.json").write_text(text)
    return folder


def load(spec: Run) -> pd.DataFrame:
    """Read the rows of a finished run, with its ``run_id``; altered files are refused."""
    folder = run_folder(spec)
    if not folder.is_dir():
        raise InputError(
            f"run {digest(spec)} of {spec.experiment} has not been made; "
            f"run `ssjf run {spec.experiment}`"
        )
    verify(folder)
    with pq.ParquetFile(folder / "rows.parquet") as file:  # pandas' reader takes four times as long
        return file.read().to_pandas().assign(run_id=folder.name)


def recorded(experiment: str, runs: pd.DataFrame, key: str) -> pd.Series:
    """Look up a key, such as ``processor``, in the ``env.json`` of each row's run."""
    folder = paths.raw() / experiment
    texts = {each: (folder / each / "env.json").read_text() for each in runs["run_id"].unique()}
    return runs["run_id"].map({each: json.loads(text)[key] for each, text in texts.items()})


def verify(folder: Path) -> None:
    """Raise InputError if any file of a stored run was altered."""
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


def sweep_temporary(experiments: Iterable[str]) -> None:
    """Remove partial files of killed runs of these experiments."""
    for experiment in experiments:
        for folder in (paths.raw() / experiment).glob(".tmp-*"):
            shutil.rmtree(folder, ignore_errors=True)
    for file in paths.workloads().glob(".*.tmp"):
        file.unlink(missing_ok=True)


def write_parquet(rows: pd.DataFrame, path: Path) -> None:
    """Write parquet (zstd), with equal bytes for equal rows, whole or not at all."""
    table = pa.Table.from_pandas(rows, preserve_index=False).replace_schema_metadata(None)
    # Metrics hardly repeat and compress a quarter better as byte planes; time stamps may repeat.
    singles = [field.name for field in table.schema if field.type == pa.float32()]
    doubles = [field.name for field in table.schema if field.type == pa.float64()]
    ways = itertools.product(([], singles, singles + doubles), (True, False))
    files = [_parquet(table, split, repeats) for split, repeats in ways]
    with whole_file(path) as temporary:
        temporary.write_bytes(min(files, key=len))


def _parquet(table: pa.Table, split: list[str], repeats: bool) -> bytes:
    others = [name for name in table.column_names if name not in split]
    file = io.BytesIO()
    pq.write_table(
        table,
        file,
        compression="zstd",
        compression_level=22,
        write_statistics=False,
        use_dictionary=others if repeats else False,
        column_encoding=dict.fromkeys(split, "BYTE_STREAM_SPLIT"),
    )
    return file.getvalue()


NEEDED = {
    "requests": ("output_tokens", "arrived_at", *STAMPS),
    "predictions": ("output_tokens", "predicted_tokens"),
    "runs": ("jct_mean",),
    "measurements": (),
}
"""Required columns by detail, besides x, seed and run."""


def check_rows(rows: pd.DataFrame, detail: str, where: str) -> None:
    """Raise InputError, naming the column, if rows do not fit their detail.

    Time stamps of a lost job and undefined metrics may be missing.
    """
    needed = ("x", "seed", "run", *NEEDED[detail])
    for name in needed:
        if name not in rows:
            raise InputError(f"rows of {where}: column {name} is missing")
    if rows.empty:
        raise InputError(f"rows of {where}: there are none; at least one is needed")
    for name in rows.columns if detail == "runs" else needed:
        numbers = pd.to_numeric(rows[name], errors="coerce")
        least = 1 if name in ("output_tokens", "predicted_tokens") else 0
        fits = np.isfinite(numbers) & (numbers >= least)
        if name in ("seed", "run", "output_tokens"):
            fits &= numbers % 1 == 0
        if name in STAMPS or name not in needed:
            fits |= rows[name].isna()
        if not fits.all():
            wrong = rows[name][~fits].iloc[0]
            raise InputError(f"rows of {where}: column {name}: {wrong} is not allowed")
