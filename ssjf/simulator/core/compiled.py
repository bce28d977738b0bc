"""Compilation of the machine by numba: once, cached between processes, and announced."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, from_dtype, njit, types
from numba.core import event
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaError
from numba.extending import intrinsic
from numba.np.unsafe.ndarray import to_fixed_tuple

from ssjf.errors import InputError

# Reference counting is off (``_nrt``): the machine allocates nothing and keeps no array, and
# counting at every call would take ten times as long as the simulation. numpy's unchecked division
# is safe: a block has at least one token, so nothing is divided by zero.
_OPTIONS = {"_nrt": False, "error_model": "numpy", "nogil": True}


class _Whole(JITCodeLibrary):
    """The code of an entry and all its parts, optimised once; there is nothing to vectorise."""

    def _optimize_functions(self, module) -> None:
        pass

    def _optimize_final_module(self) -> None:
        manager, builder = self._codegen._module_pass_manager(
            opt=2, loop_vectorize=False, slp_vectorize=False
        )
        manager.run(self._final_module, builder)


class _Part(_Whole):
    """The code of a part, which is optimised and translated only within its entries."""

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
        """Do nothing: there is no machine code yet, and it needs no environment."""


class _WholeCompiler(Compiler):
    """numba's compiler for functions that Python calls."""

    library = _Whole

    def define_pipelines(self):
        library = self.library(self.state.targetctx.codegen(), self.state.func_id.func_qualname)
        library.enable_object_caching()
        self.state.library = library
        return super().define_pipelines()


class _PartCompiler(_WholeCompiler):
    """numba's compiler for functions that only compiled code calls.

    numba alone would optimise and translate each function with all that it calls, and again in each
    of its callers: that takes five sixths of the time.
    """

    library = _Part


_PART = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "pipeline_class": _PartCompiler}
compiled = njit(**_OPTIONS, **_PART)
"""Decorator of functions that only compiled code calls; they are cached as part of the entries."""
inlined = njit(**_OPTIONS, **_PART, forceinline=True)
"""The same for functions called at every step, where a call would cost as much as their work."""


@intrinsic
def call(typing, address, arrived, predicted, generated, now, parameters):
    """Call the score at an address, made by ``native``."""
    signature = types.float64(types.int64, *[types.float64] * 4, types.int64)

    def code(context, builder, signature, values):
        real = ir.DoubleType()
        kind = ir.FunctionType(real, [*[real] * 4, real.as_pointer()])
        function = builder.inttoptr(values[0], kind.as_pointer())
        pointer = builder.inttoptr(values[-1], real.as_pointer())
        return builder.call(function, [*values[1:-1], pointer])

    return signature, code


@intrinsic
def ask(typing, address, record):
    """Call the function at an address, made by ``native_of``, with the address of a record."""

    def code(context, builder, signature, values):
        kind = ir.FunctionType(ir.DoubleType(), [ir.IntType(8).as_pointer()])
        function = builder.inttoptr(values[0], kind.as_pointer())
        return builder.call(function, [builder.inttoptr(values[1], kind.args[0])])

    return types.float64(types.int64, types.int64), code


@cache
def native_of(function: Callable[..., float], record: np.dtype):
    """Compile a function of a record for ``ask``."""
    inner = njit(function)

    def outer(at):
        return float(inner(carray(at, 1)[0]))

    return _callback(types.float64(types.CPointer(from_dtype(record))), outer,
                     f"the score {function.__name__} cannot be compiled")  # fmt: skip


@cache
def native(function: Callable[..., float], parameters: int):
    """Compile a function of four numbers and this number of parameters for ``call``."""
    inner = njit(function)

    def outer(arrived, predicted, generated, now, pointer):
        rest = to_fixed_tuple(carray(pointer, (parameters,)), parameters)
        return inner(arrived, predicted, generated, now, *rest)

    kind = types.float64(*[types.float64] * 4, types.CPointer(types.float64))
    return _callback(kind, outer, f"the score {function.__name__} cannot be compiled with "
                     f"{parameters} parameters")  # fmt: skip


def _callback(kind, outer: Callable, failed: str):
    """Compile; raises InputError with the first line of numba's reason."""
    try:
        return cfunc(kind)(outer)
    except KeyError as error:  # an unknown field of a record
        why = f"nothing is called {error}"
    except NumbaError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        why = next((line for line in lines if not line.startswith("Failed in")), lines[0])
    raise InputError(f"{failed}: {why}")


class _Announcement(event.Listener):
    """Writes a line to stderr, if it is a terminal, when the first function is compiled."""

    def __init__(self) -> None:
        self.is_made = not sys.stderr.isatty()

    def on_start(self, event: event.Event) -> None:
        if not self.is_made:
            print("compiling the simulator (once, some seconds) ...", file=sys.stderr, flush=True)
        self.is_made = True

    def on_end(self, event: event.Event) -> None:
        pass


def announced() -> AbstractContextManager[event.Listener]:
    """Return a context in which compilation is announced once."""
    return event.install_listener("numba:compile", _Announcement())


def entry(function: Callable) -> Dispatcher:
    """Decorator of functions that Python calls; cached until any file of this folder changes.

    numba's own cache looks at the file of ``function`` only, so it would miss changes in the other
    files.
    """
    dispatcher = njit(**_OPTIONS, cache=True, pipeline_class=_WholeCompiler)(function)
    dispatcher._cache._cache_file._source_stamp = checksum(Path(__file__).parent)
    return dispatcher


def checksum(folder: Path) -> str:
    """The SHA-256 of all Python files of a folder."""
    sources = sorted(folder.glob("*.py"))
    return sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()
