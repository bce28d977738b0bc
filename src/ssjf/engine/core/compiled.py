"""How the machine is compiled: once, kept between processes, and said where it takes a while."""

import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from numba import njit

# Reference counting is off (``_nrt``): the machine allocates nothing and keeps no array, and
# counting at every call costs ten times what the simulation does. Division by zero cannot
# happen (a block has at least one token), so numpy's unchecked division will do.
_OPTIONS = {"_nrt": False, "error_model": "numpy", "nogil": True}

compiled = njit(**_OPTIONS, no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""For what only compiled code calls. It is kept as part of what calls it."""
entry = njit(**_OPTIONS, cache=True)
"""For what Python calls."""


def forget_outdated(folder: Path) -> None:
    """Delete what numba kept of a folder's code if any of its files has changed since.

    numba looks at the file of the function that Python calls only: what it calls in others would
    go on as it was after an edit or an update.
    """
    files = sorted(folder.glob("*.py"))
    sources = sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    with suppress(OSError):  # where nothing can be written nothing was kept
        _forget(folder / "__pycache__", sources)


def _forget(cache: Path, sources: str) -> None:
    stamp = cache / "sources.sha256"
    if stamp.exists() and stamp.read_text() == sources:
        return
    cache.mkdir(exist_ok=True)
    for file in cache.glob("*.nb[ci]"):
        file.unlink(missing_ok=True)
    stamp.write_text(sources)


forget_outdated(Path(__file__).parent)
