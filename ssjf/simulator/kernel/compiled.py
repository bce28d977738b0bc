"""How the kernel's functions are compiled."""

from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from numba import njit

# Reference counting is off (``_nrt``): the kernel allocates nothing and keeps no array, and
# counting at every call costs ten times what the simulation does. Division by zero cannot
# happen (a block has at least one token), so numpy's unchecked division will do.
_OPTIONS = {"_nrt": False, "error_model": "numpy", "cache": True, "nogil": True}

_ENGINE = Path(__file__).parents[1]
_FOLDERS = (_ENGINE / "kernel", _ENGINE / "tiered")  # all that is compiled


def forget_outdated(folders: Sequence[Path] = _FOLDERS) -> None:
    """Delete what numba kept of these folders' code if any of it has changed since.

    numba looks at a function's own file only: what it calls in others would go on as it was after
    an edit or an update.
    """
    files = [file for folder in folders for file in sorted(folder.glob("*.py"))]
    sources = sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    with suppress(OSError):  # where nothing can be written nothing was kept
        for folder in folders:
            _forget(folder / "__pycache__", sources)


def _forget(cache: Path, sources: str) -> None:
    stamp = cache / "sources.sha256"
    if stamp.exists() and stamp.read_text() == sources:
        return
    cache.mkdir(exist_ok=True)
    for file in cache.glob("*.nb[ci]"):
        file.unlink(missing_ok=True)
    stamp.write_text(sources)


forget_outdated()
compiled = njit(**_OPTIONS)
inlined = njit(**_OPTIONS, inline="always")
