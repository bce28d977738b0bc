"""Files and folders that are written whole or not at all: under a temporary name, then renamed."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssjf.errors import InputError


def cache_folder() -> Path:
    """The folder of downloads: ``ssjf`` in ``$XDG_CACHE_HOME``, by default ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ssjf"


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Turn an OSError, such as a full disk, into an InputError that names the folder."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}") from None


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; it is renamed to ``path`` if the block succeeds.

    Raises
    ------
    InputError: where the folder cannot be written; nothing is left behind then.
    """
    with writable(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; it is renamed to ``path`` if the block succeeds.

    A folder that another process made at ``path`` meanwhile stays. Raises InputError as
    ``whole_file`` does.
    """
    with writable(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(f"-{path.name}", ".tmp-", path.parent))
        try:
            yield temporary
            temporary.chmod(0o755)
            if not path.is_dir():
                temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
