"""What tests on the real vLLM share: whether it is here, and a process that owns an engine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ssjf.harness.deployment import Deployment
from ssjf.harness.interpreter import ABSENT, python

BLOCK = 32
"""Tokens per KV block of ``SMALL``."""
SMALL = Deployment(
    name="small", shape="tiny", slots=16, token_budget=512, kv_tokens=64 * BLOCK,
    block_tokens=BLOCK, context_tokens=1024, memory_share=0.2,
)  # fmt: skip

needed = pytest.mark.skipif(python() is None, reason=ABSENT)

_OWNER = """
import json, sys, time
import numpy as np
from ssjf import Requests, Server
from ssjf.errors import InputError
from ssjf.harness.engine import Engine
from ssjf.harness.deployment import Deployment
live = Engine(Deployment(**json.loads(sys.argv[1])))
live.start()
print(live._process.pid, flush=True)
requests = Requests(np.zeros(3), np.full(3, 8), np.full(3, 400))
server = Server(slots=2, kv_tokens=2048, block_tokens=32, token_budget=256)
try:
    while True:
        live.serve(requests, "fcfs", server)
except InputError as error:
    print(error, flush=True)
done, *_ = live.serve(requests, "fcfs", server, clock="steps")
print(live._process.pid, done.finished_at.max(), flush=True)
time.sleep(600)
"""


def owner(deployment):
    """A process that serves until its engine dies, starts a new one, and waits."""
    command = [sys.executable, "-c", _OWNER, json.dumps(deployment.as_json())]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path.cwd())


def is_zombie(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
