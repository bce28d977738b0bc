"""Downloads named data sets, and loads those of requests."""

import os
import sys
import tempfile
from pathlib import Path

from ssjf.errors import InputError
from ssjf.files import cache_folder, sha256
from ssjf.request import Requests
from ssjf.workload.catalogue import (
    DATASETS,
    TEXTS,
    Source,
    check,
    check_all,
    find,
    find_form,
    known,
    search,
)

TIMEOUT_SECONDS = 30


def load(name: str) -> Requests:
    """Load the requests of a data set, after checking the checksums of its files."""
    if name in TEXTS:
        raise InputError(f"data set {name} holds texts, no requests; read it with load_texts")
    form, paths = find_form(name)
    check_all(name, form, paths)
    assert form.loader is not None  # requests have one
    return form.loader(*paths)


def get(name: str, force: bool = False) -> list[Path]:
    """Download a data set into the cache, if it is not there or with ``force``; return its files.

    For texts without a published file, return the local files; InputError says how to get them.
    """
    dataset = known(name)
    if dataset.downloads:
        return [_fetch(name, source, force) for source in dataset.downloads]
    if force:
        raise InputError(f"text data set {name} has no file to download; {dataset.how}")
    return find(name)


def _fetch(name: str, source: Source, force: bool) -> Path:
    target = cache_folder() / source.name
    if force or not target.exists():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".", dir=target.parent) as folder:
                os.replace(_download(source, Path(folder), target), target)
        except OSError as error:
            raise InputError(f"cannot write {target} ({error.strerror})") from None
    check(name, target, source.sha256)
    return target


def _download(source: Source, folder: Path, target: Path) -> Path:
    import pooch
    from requests import RequestException

    pooch.get_logger().setLevel("ERROR")
    downloader = pooch.HTTPDownloader(timeout=TIMEOUT_SECONDS, progressbar=sys.stderr.isatty())
    try:
        path = Path(pooch.retrieve(source.url, None, source.name, folder, downloader=downloader))
    except RequestException as error:
        raise InputError(
            f"cannot download {source.url} ({error}); "
            f"put the file by hand into {target.parent} as {source.name}"
        ) from None
    received = sha256(path)
    if source.sha256 not in (None, received):
        raise InputError(
            f"{source.url} gave a file with sha256 {received}, which must be {source.sha256}; "
            f"nothing was kept"
        )
    return path


def describe_all() -> list[dict[str, object]]:
    """Describe every data set: name, kind, licence, note, path (None if not here) and url."""
    records = []
    for each in (*DATASETS.values(), *TEXTS.values()):
        here = search(each)
        record = {key: getattr(each, key) for key in ("name", "kind", "licence", "note")}
        records.append(record | {"path": here[1][0] if here else None, "url": each.url})
    return records
