"""Jupyter kernels forked from one warm process, so that common imports happen only once.

Each notebook still has its own process with a fresh state. Where forking is not possible, or a
kernel is of another Python, it starts as Jupyter starts it.
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
"""Modules to import before forking; none of them starts a thread."""
_LAUNCHER = "ipykernel_launcher"


def context() -> Any:
    """The multiprocessing context: forked from the warm process where possible, else spawned."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(list(WARM))
    return forking


@contextmanager
def ended_on_interrupt(pool: Executor) -> Iterator[None]:
    """On an exception or interrupt: start no further notebook and kill the running kernels."""
    try:
        yield
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for kernel in multiprocessing.active_children():
            kernel.kill()
        raise


class Kernels(AsyncKernelManager):
    """Jupyter's kernel manager, but kernels are forked, with the repository root as their folder.

    Papermill's ``cwd`` would change the folder of this whole process, whose threads run notebooks.
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
    """A forked kernel with the methods of ``subprocess.Popen`` that the provisioner calls."""

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
    """Run a kernel in this process until it is told to stop or its parent ends."""
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
