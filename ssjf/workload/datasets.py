"""Named data sets, of requests and of texts: where they are on this machine, how to get them."""

import hashlib
import os
import urllib.request
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path

from ssjf.errors import InputError, unknown
from ssjf.request import Requests
from ssjf.workload.catalogue import (
    DATASETS,
    Dataset,
    Form,
    Source,
    cache_folder,
    folders,
    search,
)
from ssjf.workload.text_catalogue import TEXTS, TextSet, find_texts

TIMEOUT_SECONDS = 30


def find(name: str) -> list[Path]:
    """The files of a data set; InputError says where they were looked for."""
    return find_texts(name) if name in TEXTS else _located(name)[1]


def load(name: str) -> Requests:
    """The requests of a data set, its files checked against their known checksums."""
    if name in TEXTS:
        raise InputError(f"data set {name} holds texts, no requests; read it with load_texts")
    form, paths = _located(name)
    for source, path in zip(form.sources, paths, strict=True):
        _check(name, source, path)
    return form.loader(*paths)


def get(name: str, force: bool = False) -> list[Path]:
    """Download a data set into the cache, where it is not there yet or by ``force``.

    Of texts without one published file it is where they are, or InputError says how to get them.
    """
    if name in TEXTS:
        return _get_texts(TEXTS[name], force)
    return [_fetch(name, source, force) for source in _dataset(name).forms[0].sources]


def describe_all() -> list[dict[str, object]]:
    """One record per data set: name, kind, licence, note, path (None if not here) and url."""
    known: list[Dataset | TextSet] = [*DATASETS.values(), *TEXTS.values()]
    return [_describe(each) for each in known]


def _describe(each: Dataset | TextSet) -> dict[str, object]:
    here = search(each.names)
    return {
        "name": each.name,
        "kind": each.kind,
        "licence": each.licence,
        "note": each.note,
        "path": here[1][0] if here else None,
        "url": each.url,
    }


def _get_texts(wanted: TextSet, force: bool) -> list[Path]:
    if wanted.source:
        return [_fetch(wanted.name, wanted.source, force)]
    if force:
        raise InputError(f"text data set {wanted.name} has no file to download; {wanted.how}")
    return find_texts(wanted.name)


def _dataset(name: str) -> Dataset:
    if name not in DATASETS:
        raise unknown("data set", name, [*DATASETS, *TEXTS])
    return DATASETS[name]


def _located(name: str) -> tuple[Form, list[Path]]:
    dataset = _dataset(name)
    here = search(dataset.names)
    if here:
        return dataset.forms[here[0]], here[1]
    sources = dataset.forms[0].sources
    raise InputError(
        f"data set {name} is not here: no {' and '.join(s.name for s in sources)} in "
        f"{' or '.join(map(str, folders()))}; run `ssjf data get {name}`, or download "
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
