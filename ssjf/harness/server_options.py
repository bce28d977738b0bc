"""What a measured vLLM server is started with: options and variables."""

import json
from pathlib import Path

from ssjf.config import SERVE_PREFIX
from ssjf.harness.deployment import Deployment
from ssjf.harness.engine import variables
from ssjf.harness.worker import SETTINGS

HOST = "127.0.0.1"
# What an engine in a worker is given and a server is not: it has a tokenizer, and tells /metrics.
NOT_FOR_SERVERS = ("model", "skip_tokenizer_init", "scheduling_policy", "async_scheduling",
                 "disable_log_stats")  # fmt: skip
# vLLM closes a connection that was idle for 5 s; its own bench keeps them for 60 s, and can fail
# where it sends at that moment.
KEEP_ALIVE = {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "90"}


def options_of(deployment: Deployment, slots: int, model: Path) -> list[str]:
    """A deployment as options of ``vllm serve``, with that many slots."""
    given = deployment.engine_arguments(model) | {"max_num_seqs": slots}
    found: list[str] = []
    for name, value in given.items():
        flag = name.replace("_", "-")
        if name in NOT_FOR_SERVERS:
            continue
        if isinstance(value, bool):
            found.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            found += [f"--{flag}", json.dumps(value) if isinstance(value, dict) else str(value)]
    return found


def environment(model: str) -> dict[str, str]:
    """The variables of a server or its client: those of this process, of ``SETTINGS`` and
    ``KEEP_ALIVE`` what is not among them, and where this very package is."""
    settings = SETTINGS | KEEP_ALIVE
    if not Path(model).is_dir():
        settings.pop("HF_HUB_OFFLINE")
    kept = {name: text for name, text in variables().items() if not name.startswith(SERVE_PREFIX)}
    return settings | kept
