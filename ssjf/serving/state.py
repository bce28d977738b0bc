"""A file that keeps what was learned: whole, or the one before, whatever is killed when.

Its first line says what it is and the hash of the rest. It holds lengths and vectors, no text. Of
several server processes that share it the last to write is the one it keeps.
"""

import hashlib
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from ssjf.errors import InputError

FORMAT = 1
LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class StateFile:
    """Where it is, what was learned (``learn``), and about which proxy (its hash)."""

    path: Path
    learn: str
    proxy_sha256: str

    def check(self) -> None:
        """InputError unless the file can be written."""
        folder = self.path.absolute().parent
        if self.path.is_dir() or not folder.is_dir():
            raise InputError(f"state {self.path} must be a file in a folder that is there")
        if not os.access(folder, os.W_OK):
            raise InputError(f"state {self.path}: {folder} is not yours to write to")

    def read(self) -> bytes | None:
        """What was saved, or None; a file that is something else is put aside with a warning."""
        self._tidy()
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"state {self.path} cannot be read ({error.strerror})") from None
        line, _, state = data.partition(b"\n")
        if line == self._line(state):
            return state
        self.put_aside("it was not written whole for this proxy and way of learning")
        return None

    def put_aside(self, why: str) -> None:
        """Keep the file under another name."""
        names = (f"{self.path.name}.aside-{i}" for i in range(1, 10**6))
        aside = next(p for p in map(self.path.with_name, names) if not p.exists())
        os.replace(self.path, aside)
        LOG.warning("state %s is not used: %s; it is kept as %s", self.path, why, aside)

    def write(self, state: bytes) -> None:
        """Replace the file; OSError leaves the one before."""
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            with partial.open("wb") as file:
                file.write(self._line(state) + b"\n")
                file.write(state)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, self.path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        _sync(self.path.absolute().parent)

    def _line(self, state: bytes) -> bytes:
        told = {"format": FORMAT, "learn": self.learn, "proxy": self.proxy_sha256,
                "sha256": hashlib.sha256(state).hexdigest()}  # fmt: skip
        return json.dumps(told).encode()

    def _tidy(self) -> None:
        """Remove what processes left that were killed while they wrote."""
        for partial in self.path.absolute().parent.glob(f".{self.path.name}.*.tmp"):
            pid = partial.name.split(".")[-2]
            if pid.isdigit() and not _lives(int(pid)):
                partial.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return pid != os.getpid()


def _sync(folder: Path) -> None:
    """Have the new name on the disk, too."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
