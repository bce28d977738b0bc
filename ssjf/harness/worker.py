"""The process that holds an engine: a line of JSON asks for a run, a line of JSON answers.

    python -m ssjf.harness.worker < jobs

The first line has the engine's arguments; each further line a job (see ``Driver.serve``) with
the paths of its requests and of its result, both ``.npz``. What vLLM prints goes to standard
error. The process ends with its input.
"""

import faulthandler
import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TextIO

import numpy as np

SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "OMP_NUM_THREADS": "1",
}
"""The environment that vLLM is imported in, unless it is set already."""


def main() -> None:
    faulthandler.enable()
    answers = _take_standard_output()
    os.environ.update({key: value for key, value in SETTINGS.items() if key not in os.environ})
    try:
        from ssjf.harness.driver import Driver

        driver = Driver(json.loads(sys.stdin.readline()))
        _say(answers, hardware())
        for line in sys.stdin:
            job = json.loads(line)
            with np.load(job["requests"]) as requests:
                found: dict[str, Any] = driver.serve(job, dict(requests))
            np.savez(job["result"], **found)
            _say(answers, {"done": job["result"]})
    except Exception as error:
        words = " ".join(str(error).split())
        _say(answers, {"error": f"{type(error).__name__}: {words}"})
        raise


def _take_standard_output() -> TextIO:
    """The real standard output, kept from everything that prints."""
    kept = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return kept


def _say(answers: TextIO, value: dict[str, Any]) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()


def hardware() -> dict[str, Any]:
    """What runs are measured on: versions, processor or accelerator, settings."""
    import torch
    import vllm

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "vllm": vllm.__version__,
        "vllm_package": _distribution(),
        "torch": torch.__version__,
        "accelerator": gpu,
        "worker_python": platform.python_version(),
        "settings": {key: os.environ[key] for key in SETTINGS},
    }


def _distribution() -> str | None:
    for name in ("vllm", "vllm-cpu"):
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return None


if __name__ == "__main__":
    main()
