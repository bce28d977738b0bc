"""How the machine is compiled: once, kept between processes, and said where it takes a while."""

import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from numba import njit
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

# Reference counting is off (``_nrt``): the machine allocates nothing and keeps no array, and
# counting at every call costs ten times what the simulation does. Division by zero cannot
# happen (a block has at least one token), so numpy's unchecked division will do.
_OPTIONS = {"_nrt": False, "error_model": "numpy", "nogil": True}



class _Part(JITCodeLibrary):
    """Code that is optimised and made machine code where it is called, not by itself as well."""

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()
        return 0  # Python never calls it

    @property
    def codegen(self) -> "_Part":
        return self

    def set_env(self, name: str, env: object) -> None:
        """There is no machine code yet whose environment could be set; it needs none."""


class _PartCompiler(Compiler):
    """numba's compiler for a function that only compiled code calls.

    numba would optimise and translate each function with all that it calls, and again in each of
    its callers: of six parts of the time that takes, five.
    """

    def define_pipelines(self):
        name = self.state.func_id.func_qualname
        self.state.library = _Part(self.state.targetctx.codegen(), name)
        return super().define_pipelines()


_PART = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "pipeline_class": _PartCompiler}
compiled = njit(**_OPTIONS, **_PART)
"""For what only compiled code calls. It is kept as part of what calls it."""
inlined = njit(**_OPTIONS, **_PART, forceinline=True)
"""The same for what is called at every step, where a call costs as much as what it does."""
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
