"""Named data sets, of requests and of texts: where they are on this machine, how to get them."""

import hashlib
import os
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

from ssjf.errors import InputError, unknown
from ssjf.request import Requests
from ssjf.workload.catalogue import (
    DATASETS,
    TEXTS,
    Dataset,
    Form,
    Source,
    TextSet,
    cache_folder,
    folders,
    search,
)

TIMEOUT_SECONDS = 30


def find(name: str) -> list[Path]:
    """The files of a data set; InputError says where they were looked for."""
    return find_texts(name) if name in TEXTS else _located(name)[1]


def find_texts(name: str) -> list[Path]:
    """The files of a text data set, in $SSJF_DATA (or two folders below), then in the cache.

    Raises InputError where there are none, and for a file with another checksum than the known.
    """
    if name not in TEXTS:
        raise unknown("text data set", name, TEXTS)
    texts = TEXTS[name]
    here = search(texts.names)
    if not here:
        raise InputError(
            f"text data set {name} is not here: no {' or '.join(texts.files)} in "
            f"{' or '.join(map(str, folders()))}; {texts.how}"
        )
    first = here[1][0]
    if texts.sha256 and first.name == texts.files[0] and sha256_of(first) != texts.sha256:
        raise InputError(
            f"{first} is not the file of text data set {name} that is known: its sha256 must be "
            f"{texts.sha256}"
        )
    return here[1]


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
    if name not in TEXTS:
        return [_fetch(name, source, force) for source in _dataset(name).forms[0].sources]
    texts = TEXTS[name]
    if texts.source:
        return [_fetch(name, texts.source, force)]
    if force:
        raise InputError(f"text data set {name} has no file to download; {texts.how}")
    return find_texts(name)


def describe_all() -> list[dict[str, object]]:
    """One record per data set: name, kind, licence, note, path (None if not here) and url."""
    known: list[Dataset | TextSet] = [*DATASETS.values(), *TEXTS.values()]
    return [_describe(each) for each in known]


def _describe(each: Dataset | TextSet) -> dict[str, object]:
    here = search(each.names)
    record = {key: getattr(each, key) for key in ("name", "kind", "licence", "note")}
    return record | {"path": here[1][0] if here else None, "url": each.url}


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
    if source.sha256 and sha256_of(path) != source.sha256:
        raise InputError(
            f"{path} is not the file {source.name} of data set {name}: its sha256 must be "
            f"{source.sha256}; delete it and run `ssjf data get {name}`"
        )


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, which is read again only once it has changed."""
    stat = path.stat()
    return _sha256(path, stat.st_mtime_ns, stat.st_size)


@lru_cache
def _sha256(path: Path, modified_ns: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(name: str, source: Source, force: bool) -> Path:
    target = cache_folder() / source.name
    if force or not target.exists():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".", dir=target.parent) as folder:
                os.replace(_download(source, Path(folder), target), target)
        except OSError as error:
            raise InputError(f"cannot write {target} ({error.strerror})") from None
    _check(name, source, target)
    return target


def _download(source: Source, folder: Path, target: Path) -> Path:
    import pooch
    from requests import RequestException

    pooch.get_logger().setLevel("ERROR")
    downloader = pooch.HTTPDownloader(timeout=TIMEOUT_SECONDS, progressbar=sys.stderr.isatty())
    try:
        path = pooch.retrieve(
            str(source.url), None, source.name, folder, downloader=downloader
        )  # fmt: skip
    except RequestException as error:
        raise InputError(
            f"cannot download {source.url} ({error}); "
            f"put the file by hand into {target.parent} as {source.name}"
        ) from None
    received = pooch.file_hash(path)
    if source.sha256 not in (None, received):
        raise InputError(
            f"{source.url} gave a file with sha256 {received}, which must be {source.sha256}; "
            f"nothing was kept"
        )
    return Path(path)
