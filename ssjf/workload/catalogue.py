"""The named data sets (``data/catalogue.toml``) and the search for their files.

A data set is searched in ``$SSJF_DATA`` (and up to two folders below it), then in the user's
cache, ``$XDG_CACHE_HOME/ssjf`` or ``~/.cache/ssjf``.
"""

import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

from ssjf.errors import InputError, unknown
from ssjf.files import cache_folder
from ssjf.files import sha256 as file_sha256
from ssjf.request import Requests
from ssjf.workload import traces


@dataclass(frozen=True)
class Source:
    """A file: its name (a pattern may match several), and its checksum and URL if known."""

    name: str
    sha256: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class Form:
    """Files that together hold a data set; ``loader`` reads those of requests, in order."""

    sources: tuple[Source, ...]
    loader: Callable[..., Requests] | None = None


@dataclass(frozen=True)
class Dataset:
    """A data set; ``forms[0]`` is as its authors publish it, other forms are accepted too.

    kind: "trace" (arrivals and lengths), "lengths" or "texts". get: how to obtain texts.
    """

    name: str
    kind: str
    licence: str
    note: str
    url: str
    forms: tuple[Form, ...]
    get: str = ""

    @property
    def downloads(self) -> tuple[Source, ...]:
        """The published files, if each has its own URL."""
        forms = [form for form in self.forms if all(source.url for source in form.sources)]
        return forms[0].sources if forms else ()

    @property
    def missing(self) -> str:
        """The message that it is not here, and how to get it."""
        looked_in = " or ".join(map(str, _folders()))
        if self.kind == "texts":
            names = " or ".join(form.sources[0].name for form in self.forms)
            return f"text data set {self.name} is not here: no {names} in {looked_in}; {self.how}"
        names, urls = (" and ".join(parts) for parts in
                       zip(*((each.name, str(each.url)) for each in self.forms[0].sources),
                           strict=True))  # fmt: skip
        return (
            f"data set {self.name} is not here: no {names} in {looked_in}; run `ssjf data get "
            f"{self.name}`, or download {urls} by hand and set SSJF_DATA to its folder"
        )

    @property
    def how(self) -> str:
        """How to get the files of texts, with their licence."""
        run = f"run `ssjf data get {self.name}`, or " if self.downloads else ""
        return f"{run}{self.get} from {self.url} (licence: {self.licence})"


def _catalogue() -> tuple[dict[str, Dataset], dict[str, Dataset]]:
    text = (resources.files("ssjf.workload") / "data/catalogue.toml").read_text(encoding="utf-8")
    tables = tomllib.loads(text)
    return ({name: _requests(name, **table) for name, table in tables["requests"].items()},
            {name: _texts(name, **table) for name, table in tables["texts"].items()})  # fmt: skip


def _requests(name: str, forms: list[dict[str, Any]], **table: str) -> Dataset:
    read = [Form(tuple(Source(**each) for each in form["sources"]), getattr(traces, form["loader"]))
            for form in forms]  # fmt: skip
    return Dataset(name, url=str(read[0].sources[0].url), forms=tuple(read), **table)


def _texts(
    name: str, files: list[str], url: str, sha256: str | None = None, **table: str
) -> Dataset:
    """Make a data set of texts; any one of its files will do, and the first has the checksum."""
    forms = [Form((Source(file, sha256 if file == files[0] else None,
                          url if url.endswith(f"/{file}") else None),))
             for file in files]  # fmt: skip
    return Dataset(name, kind="texts", url=url, forms=tuple(forms), **table)


DATASETS, TEXTS = _catalogue()


def known(name: str) -> Dataset:
    """Look up a data set by name."""
    if name not in DATASETS and name not in TEXTS:
        raise unknown("data set", name, [*DATASETS, *TEXTS])
    return DATASETS[name] if name in DATASETS else TEXTS[name]


def find(name: str) -> list[Path]:
    """Find the files of a data set and check those of texts; InputError lists the folders."""
    form, paths = find_form(name)
    if name in TEXTS:
        check_all(name, form, paths)
    return paths


def find_form(name: str) -> tuple[Form, list[Path]]:
    """Find the form in which a data set is here, and its files."""
    dataset = known(name)
    here = search(dataset)
    if here is None:
        raise InputError(dataset.missing)
    return here


def check_all(name: str, form: Form, paths: list[Path]) -> None:
    """Check files with a known checksum."""
    for source, path in zip(form.sources, paths, strict=False):  # a pattern has none
        check(name, path, source.sha256)


def check(name: str, path: Path, sha256: str | None) -> None:
    """Raise InputError if a file of the data set differs from its known checksum."""
    if sha256 and file_sha256(path) != sha256:
        raise InputError(
            f"{path} is not the known file of data set {name}: its sha256 must be {sha256}; "
            f"delete it and run `ssjf data get {name}`"
        )


def search(dataset: Dataset) -> tuple[Form, list[Path]] | None:
    """Find the first form of a data set that is here, and its files."""
    for folder, form in product(_folders(), dataset.forms):
        files = [_in_folder(folder, source.name) for source in form.sources]
        if all(files):
            return form, [path for paths in files for path in paths]
    return None


def _folders() -> list[Path]:
    data = os.environ.get("SSJF_DATA")
    return [*([Path(data)] if data else []), cache_folder()]


def _in_folder(folder: Path, pattern: str) -> list[Path]:
    """The matching files of the first folder that has any: this one, or up to two levels below."""
    for depth in ("", "*/", "*/*/"):
        paths = [path for path in sorted(folder.glob(depth + pattern)) if path.is_file()]
        if paths:
            return [path for path in paths if path.parent == paths[0].parent]
    return []
