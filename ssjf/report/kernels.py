"""Kernels forked from one warm process: what every notebook imports is imported once.

Each notebook still has a process of its own, with a fresh state. Where nothing can be forked,
or a kernel is not this Python, it starts as Jupyter starts it.
"""

import multiprocessing
import os
import sys
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

from ssjf.experiments import paths
from ssjf.experiments.runner import end_with_the_parent

WARM = (
    *("ipykernel.kernelapp", "ipykernel.ipkernel", "ipywidgets"),
    *("pyarrow.parquet", "scipy.stats", "seaborn", "numba", "fontTools.subset"),
    *("matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf"),
    *("matplotlib.backends.backend_svg", "pandas.plotting"),
    *("ssjf.report.kernels", "ssjf.report.tables", "ssjf.report.claims"),
)
"""What is imported before a process is forked; none of it starts a thread."""
_LAUNCHER = "ipykernel_launcher"


def context() -> Any:
    """How processes start here: forked from the warm process, or anew."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(list(WARM))
    return forking


@contextmanager
def ended_on_interrupt(pool: Executor) -> Iterator[None]:
    """Where what is done with the pool is broken off: end its kernels, begin no other."""
    try:
        yield
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for kernel in multiprocessing.active_children():
            kernel.kill()
        raise


class Kernels(AsyncKernelManager):
    """Jupyter's manager of a kernel, except that the kernel is forked, in the repository's root.

    Papermill's ``cwd`` would move the whole process, and notebooks run in its threads.
    """

    async def _async_pre_start_kernel(self, **given: Any) -> tuple[list[str], dict[str, Any]]:
        if context().get_start_method() == "forkserver":
            self.provisioner = _Provisioner(
                kernel_id=self.kernel_id, kernel_spec=self.kernel_spec, parent=self
            )
        return await super()._async_pre_start_kernel(**{"cwd": str(paths.root())} | given)


class _Provisioner(LocalProvisioner):
    process: Any = None

    async def launch_kernel(self, cmd: list[str], **given: Any) -> KernelConnectionInfo:
        if cmd[0] != sys.executable or _LAUNCHER not in cmd:
            return await super().launch_kernel(cmd, **given)
        arguments = cmd[cmd.index(_LAUNCHER) + 1 :]
        self.cwd = given.get("cwd") or os.getcwd()
        self.process = _Forked(arguments, self.cwd, given["env"])
        self.pid = self.pgid = self.process.pid
        return self.connection_info


class _Forked:
    """A forked kernel with the methods of ``subprocess.Popen`` that its provisioner calls."""

    stdin = stdout = stderr = None

    def __init__(self, *given: Any) -> None:
        self.process = context().Process(target=_serve, args=given)
        self.process.start()
        self.pid = self.process.pid
        self.kill, self.terminate = self.process.kill, self.process.terminate

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self) -> int | None:
        self.process.join()
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def _serve(arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """Be a kernel, in this process, until it is asked to end or its parent has."""
    import matplotlib as mpl
    from ipykernel.kernelapp import IPKernelApp

    os.setsid()  # signals reach the kernel and what it starts, as they do Jupyter's own
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    end_with_the_parent()
    app = IPKernelApp.instance()
    app.initialize(arguments)
    mpl.rcParams["backend"] = os.environ["MPLBACKEND"]  # matplotlib read it before it was set
    app.start()
