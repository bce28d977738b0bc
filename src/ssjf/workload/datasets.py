"""Named data sets: where they are on this machine, and how to get them.

A data set is looked for in ``$SSJF_DATA`` (and up to two folders below it), then in the user's
cache, ``$XDG_CACHE_HOME/ssjf`` or ``~/.cache/ssjf``.
"""

import hashlib
import os
import urllib.request
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path

from ssjf.errors import InputError, unknown
from ssjf.request import Requests
from ssjf.workload.catalogue import DATASETS, Dataset, Form, Source

TIMEOUT_SECONDS = 30


def find(name: str) -> list[Path]:
    """The files of a data set; InputError says where they were looked for."""
    return _located(name)[1]


def load(name: str) -> Requests:
    """The requests of a data set, its files checked against their known checksums."""
    form, paths = _located(name)
    for source, path in zip(form.sources, paths, strict=True):
        _check(name, source, path)
    return form.loader(*paths)


def get(name: str, force: bool = False) -> list[Path]:
    """Download a data set into the cache, where it is not there yet or by ``force``."""
    return [_fetch(name, source, force) for source in _dataset(name).forms[0].sources]


def describe_all() -> list[dict[str, object]]:
    """One record per data set: name, kind, licence, note, path (None if not here) and url."""
    return [_describe(dataset) for dataset in DATASETS.values()]


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ssjf"


def _describe(dataset: Dataset) -> dict[str, object]:
    here = _search(dataset)
    return {
        "name": dataset.name,
        "kind": dataset.kind,
        "licence": dataset.licence,
        "note": dataset.note,
        "path": here[1][0] if here else None,
        "url": dataset.forms[0].sources[0].url,
    }


def _dataset(name: str) -> Dataset:
    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    return DATASETS[name]


def _folders() -> list[Path]:
    data = os.environ.get("SSJF_DATA")
    return [*([Path(data)] if data else []), cache_folder()]


def _search(dataset: Dataset) -> tuple[Form, list[Path]] | None:
    for folder in _folders():
        for form in dataset.forms:
            found = (_in_folder(folder, source.name) for source in form.sources)
            paths = [path for path in found if path]
            if len(paths) == len(form.sources):
                return form, paths
    return None


def _in_folder(folder: Path, name: str) -> Path | None:
    for depth in ("", "*/", "*/*/"):
        for path in sorted(folder.glob(depth + name)):
            if path.is_file():
                return path
    return None


def _located(name: str) -> tuple[Form, list[Path]]:
    dataset = _dataset(name)
    located = _search(dataset)
    if located:
        return located
    sources = dataset.forms[0].sources
    raise InputError(
        f"data set {name} is not here: no {' and '.join(s.name for s in sources)} in "
        f"{' or '.join(map(str, _folders()))}; run `ssjf data get {name}`, or download "
        f"{' and '.join(str(s.url) for s in sources)} by hand and set SSJF_DATA to its folder"
    )


def _check(name: str, source: Source, path: Path) -> None:
    stat = path.stat()
    if source.sha256 and _file_sha256(path, stat.st_mtime_ns, stat.st_size) != source.sha256:
        raise InputError(
            f"{path} is not the file {source.name} of data set {name}: its sha256 must be "
            f"{source.sha256}; delete it and run `ssjf data get {name}`"
        )


@lru_cache
def _file_sha256(path: Path, modified_ns: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(name: str, source: Source, force: bool) -> Path:
    target = cache_folder() / source.name
    if force or not target.exists():
        _write(target, _download(source, target))
    _check(name, source, target)
    return target


def _download(source: Source, target: Path) -> bytes:
    try:
        with urllib.request.urlopen(str(source.url), timeout=TIMEOUT_SECONDS) as response:
            data = response.read()
    except (OSError, HTTPException) as error:
        raise InputError(
            f"cannot download {source.url} ({getattr(error, 'reason', error)}); "
            f"put the file by hand into {target.parent} as {source.name}"
        ) from None
    found = hashlib.sha256(data).hexdigest()
    if source.sha256 not in (None, found):
        raise InputError(
            f"{source.url} gave a file with sha256 {found}, which must be {source.sha256}; "
            f"nothing was kept"
        )
    return data


def _write(target: Path, data: bytes) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace(target, data)
    except OSError as error:
        raise InputError(f"cannot write {target} ({error.strerror})") from None


def _replace(target: Path, data: bytes) -> None:
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
