"""The data sets known by name (``data/catalogue.toml``), and where their files are.

A data set is looked for in ``$SSJF_DATA`` (and up to two folders below it), then in the user's
cache, ``$XDG_CACHE_HOME/ssjf`` or ``~/.cache/ssjf``.
"""

import os
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

from ssjf.errors import InputError, unknown
from ssjf.files import cache_folder, sha256
from ssjf.request import Requests
from ssjf.workload import traces


@dataclass(frozen=True)
class Source:
    """One file: its name, its checksum where one is known, and its URL where it has one."""

    name: str
    sha256: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class Form:
    """Files that hold a data set together, and the function that reads them in this order."""

    loader: Callable[..., Requests]
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Dataset:
    """Requests: ``forms[0]`` is as their authors publish them, the others are accepted too."""

    name: str
    kind: str  # "trace" (arrivals and lengths) or "lengths"
    licence: str
    note: str
    forms: tuple[Form, ...]

    @property
    def url(self) -> str | None:
        return self.forms[0].sources[0].url

    @property
    def names(self) -> list[tuple[str, ...]]:
        """The names of the files of each form."""
        return [tuple(source.name for source in form.sources) for form in self.forms]


@dataclass(frozen=True)
class TextSet:
    """Texts: their files, under any one of these names (a pattern may match several).

    get: how to have the files, as a sentence. sha256: of ``files[0]``.
    """

    name: str
    licence: str
    note: str
    url: str
    get: str
    files: tuple[str, ...]
    sha256: str | None = None
    kind = "texts"

    @property
    def source(self) -> Source | None:
        """The one published file, where ``url`` is that of one of the files."""
        name = self.url.rpartition("/")[2]
        return Source(name, None, self.url) if name in self.files else None

    @property
    def names(self) -> list[tuple[str, ...]]:
        """Each name of its files on its own: any one of them will do."""
        return [(name,) for name in self.files]

    @property
    def how(self) -> str:
        """How to have the files, with their licence."""
        run = f"run `ssjf data get {self.name}`, or " if self.source else ""
        return f"{run}{self.get} from {self.url} (licence: {self.licence})"


def _catalogue() -> tuple[dict[str, Dataset], dict[str, TextSet]]:
    text = (resources.files("ssjf.workload") / "data/catalogue.toml").read_text(encoding="utf-8")
    tables = tomllib.loads(text)
    requests = {}
    for name, table in tables["requests"].items():
        forms = [Form(getattr(traces, form["loader"]), tuple(Source(**s) for s in form["sources"]))
                 for form in table.pop("forms")]  # fmt: skip
        requests[name] = Dataset(name, forms=tuple(forms), **table)
    texts = {name: TextSet(name, files=tuple(table.pop("files")), **table)
             for name, table in tables["texts"].items()}  # fmt: skip
    return requests, texts


DATASETS, TEXTS = _catalogue()


def find(name: str) -> list[Path]:
    """The files of a data set; InputError says where they were looked for."""
    return find_texts(name) if name in TEXTS else find_requests(name)[1]


def find_requests(name: str) -> tuple[Form, list[Path]]:
    """The form in which a data set of requests is here, and its files."""
    if name not in DATASETS:
        raise unknown("data set", name, [*DATASETS, *TEXTS])
    dataset = DATASETS[name]
    here = search(dataset.names)
    if here:
        return dataset.forms[here[0]], here[1]
    sources = dataset.forms[0].sources
    raise InputError(
        f"data set {name} is not here: no {' and '.join(s.name for s in sources)} in "
        f"{_looked_in()}; run `ssjf data get {name}`, or download "
        f"{' and '.join(str(s.url) for s in sources)} by hand and set SSJF_DATA to its folder"
    )


def find_texts(name: str) -> list[Path]:
    """The files of a text data set; InputError for a checksum that is not the known one."""
    if name not in TEXTS:
        raise unknown("text data set", name, TEXTS)
    texts = TEXTS[name]
    here = search(texts.names)
    if not here:
        raise InputError(
            f"text data set {name} is not here: no {' or '.join(texts.files)} in {_looked_in()}; "
            f"{texts.how}"
        )
    paths = here[1]
    if paths[0].name == texts.files[0]:
        check(name, paths[0], texts.sha256)
    return paths


def check(name: str, path: Path, known: str | None) -> None:
    """Raise InputError unless a file of the data set has the known checksum, if there is one."""
    if known and sha256_of(path) != known:
        raise InputError(
            f"{path} is not the known file of data set {name}: its sha256 must be {known}; "
            f"delete it and run `ssjf data get {name}`"
        )


def search(forms: Sequence[tuple[str, ...]]) -> tuple[int, list[Path]] | None:
    """Which of the forms (names of files, or patterns) is here first, and its files."""
    for folder in _folders():
        for place, names in enumerate(forms):
            files = [_in_folder(folder, name) for name in names]
            if all(files):
                return place, [path for paths in files for path in paths]
    return None


def _folders() -> list[Path]:
    data = os.environ.get("SSJF_DATA")
    return [*([Path(data)] if data else []), cache_folder()]


def _looked_in() -> str:
    return " or ".join(map(str, _folders()))


def _in_folder(folder: Path, pattern: str) -> list[Path]:
    """The files that match, of the first folder with any: itself, or up to two below it."""
    for depth in ("", "*/", "*/*/"):
        paths = [path for path in sorted(folder.glob(depth + pattern)) if path.is_file()]
        if paths:
            return [path for path in paths if path.parent == paths[0].parent]
    return []


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, which is read again only once it has changed."""
    stat = path.stat()
    return _sha256(path, stat.st_mtime_ns, stat.st_size)


@lru_cache
def _sha256(path: Path, modified_ns: int, size: int) -> str:
    return sha256(path)
