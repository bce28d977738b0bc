"""A measurement in a process of its own: on one thread, with nothing compiled before."""

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ONE_THREAD = {
    f"{library}_NUM_THREADS": "1"
    for library in ("OMP", "OPENBLAS", "MKL", "NUMBA", "VECLIB", "NUMEXPR")
}


def in_own_process(module: str, *arguments: object) -> Any:
    """What ``python -m MODULE ARGUMENTS`` prints, which must be JSON.

    Threads and the place of compiled code are settled before anything is imported.
    """
    with tempfile.TemporaryDirectory() as empty:
        env = os.environ | ONE_THREAD | {"NUMBA_CACHE_DIR": empty}
        command = [sys.executable, "-m", module, *map(str, arguments)]
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def most_resident_kb() -> int:
    """On Linux of this program alone; getrusage counts there what the starting one held."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return found[0] if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
