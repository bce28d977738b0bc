"""How the machine is compiled: once, kept between processes, and said where it takes a while."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, from_dtype, njit, types
from numba.core import event, typed_passes, untyped_passes
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaError
from numba.extending import intrinsic
from numba.np.unsafe.ndarray import to_fixed_tuple

from ssjf.errors import InputError

# Reference counting is off (``_nrt``): the machine allocates nothing and keeps no array, and
# counting at every call costs ten times what the simulation does. Division by zero cannot
# happen (a block has at least one token), so numpy's unchecked division will do.
_OPTIONS = {"_nrt": False, "error_model": "numpy", "nogil": True}


class _Whole(JITCodeLibrary):
    """An entry and all its parts, optimised once: there is nothing to vectorise."""

    def _optimize_functions(self, module) -> None:
        pass

    def _optimize_final_module(self) -> None:
        manager, builder = self._codegen._module_pass_manager(
            opt=2, loop_vectorize=False, slp_vectorize=False
        )
        manager.run(self._final_module, builder)


class _Part(_Whole):
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


_NEEDLESS = {
    untyped_passes.WithLifting, untyped_passes.InlineInlinables, untyped_passes.InlineClosureLikes,
    untyped_passes.MakeFunctionToJitFunction, untyped_passes.FindLiterallyCalls,
    untyped_passes.LiteralUnroll, untyped_passes.LiteralPropagationSubPipelinePass,
    typed_passes.InlineOverloads, typed_passes.NopythonRewrites,
}  # fmt: skip
"""For closures, comprehensions, ``with``, literals, array expressions: there are none."""


class _WholeCompiler(Compiler):
    """numba's compiler for what Python calls."""

    library = _Whole

    def define_pipelines(self):
        library = self.library(self.state.targetctx.codegen(), self.state.func_id.func_qualname)
        library.enable_object_caching()
        self.state.library = library
        (pipeline,) = super().define_pipelines()
        pipeline.passes = [each for each in pipeline.passes if each[0] not in _NEEDLESS]
        pipeline.finalize()
        return [pipeline]


class _PartCompiler(_WholeCompiler):
    """numba's compiler for a function that only compiled code calls.

    numba would optimise and translate each function with all that it calls, and again in each of
    its callers: of six parts of the time that takes, five.
    """

    library = _Part


_PART = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "pipeline_class": _PartCompiler}
compiled = njit(**_OPTIONS, **_PART)
"""For what only compiled code calls. It is kept as part of what calls it."""
inlined = njit(**_OPTIONS, **_PART, forceinline=True)
"""The same for what is called at every step, where a call costs as much as what it does."""


@intrinsic
def call(typing, address, arrived, predicted, generated, now, parameters):
    """What the function at an address says: see ``native``."""
    signature = types.float64(types.int64, *[types.float64] * 4, types.int64)

    def code(context, builder, signature, values):
        real = ir.DoubleType()
        kind = ir.FunctionType(real, [*[real] * 4, real.as_pointer()])
        function = builder.inttoptr(values[0], kind.as_pointer())
        given = builder.inttoptr(values[-1], real.as_pointer())
        return builder.call(function, [*values[1:-1], given])

    return signature, code


@intrinsic
def ask(typing, address, record):
    """What the function at an address says of the record at another: see ``native_of``."""

    def code(context, builder, signature, values):
        kind = ir.FunctionType(ir.DoubleType(), [ir.IntType(8).as_pointer()])
        function = builder.inttoptr(values[0], kind.as_pointer())
        return builder.call(function, [builder.inttoptr(values[1], kind.args[0])])

    return types.float64(types.int64, types.int64), code


@cache
def native_of(function: Callable[..., float], record: np.dtype):
    """A function of such a record as one that ``ask`` can call."""
    inner = njit(function)

    def outer(at):
        return float(inner(carray(at, 1)[0]))

    return _callback(types.float64(types.CPointer(from_dtype(record))), outer,
                     f"the score {function.__name__} cannot be compiled")  # fmt: skip


@cache
def native(function: Callable[..., float], parameters: int):
    """A function of four numbers and so many parameters as one that ``call`` can call."""
    inner = njit(function)

    def outer(arrived, predicted, generated, now, given):
        rest = to_fixed_tuple(carray(given, (parameters,)), parameters)
        return inner(arrived, predicted, generated, now, *rest)

    kind = types.float64(*[types.float64] * 4, types.CPointer(types.float64))
    return _callback(kind, outer, f"the score {function.__name__} cannot be compiled with "
                     f"{parameters} parameters")  # fmt: skip


def _callback(kind, outer: Callable, failed: str):
    """Compiled, or InputError with the first line of why not."""
    try:
        return cfunc(kind)(outer)
    except KeyError as error:  # of a record
        why = f"nothing is called {error}"
    except NumbaError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        why = next((line for line in lines if not line.startswith("Failed in")), lines[0])
    raise InputError(f"{failed}: {why}")


class _Announcement(event.Listener):
    """A line on a terminal's stderr, once, if anything is compiled."""

    def __init__(self) -> None:
        self.is_made = not sys.stderr.isatty()

    def on_start(self, event: event.Event) -> None:
        if not self.is_made:
            print("compiling the simulator (once, some seconds) ...", file=sys.stderr, flush=True)
        self.is_made = True

    def on_end(self, event: event.Event) -> None:
        pass


def announced() -> AbstractContextManager[event.Listener]:
    """Makes that announcement for what is done in this context."""
    return event.install_listener("numba:compile", _Announcement())


def entry(function: Callable) -> Dispatcher:
    """For what Python calls: kept between processes, until any of these sources changes.

    numba looks at the file of ``function`` only: what it calls in others would go on as it was
    after an edit or an update.
    """
    made = njit(**_OPTIONS, cache=True, pipeline_class=_WholeCompiler)(function)
    made._cache._cache_file._source_stamp = checksum(Path(__file__).parent)
    return made


def checksum(folder: Path) -> str:
    """The SHA-256 of all Python files of a folder."""
    sources = sorted(folder.glob("*.py"))
    return sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()
