"""Files that are whole or not there: written under a temporary name, then renamed."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssjf.errors import InputError


def cache_folder() -> Path:
    """Where downloads are kept: ``ssjf`` in ``$XDG_CACHE_HOME``, by default ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ssjf"


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """A full disk or a folder that cannot be written is one clear sentence."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}") from None


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; it takes the name once the block ends well.

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
    """A temporary folder beside ``path`` to fill; it takes the name once the block ends well.

    A folder of that name that another process made meanwhile stays. Raises InputError as
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
