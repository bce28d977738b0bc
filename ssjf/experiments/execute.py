"""From a specification to its rows: build the workload, serve it, measure."""

from importlib import import_module
from typing import Any

import pandas as pd

from ssjf.errors import unknown

Spec = dict[str, Any]

ENGINES = {
    "published": "published:rows",
    "simulator": "steady:rows",
    "training": "training:predictions",
    "cost": "latency:costs",
    "latency": "latency:latencies",
    "vllm": "vllm:rows",
    "vllm-steps": "vllm:steps",
    "vllm-anatomy": "vllm:anatomy",
    "vllm-swap": "vllm:swapping",
    "serve-load": "server:rows",
    "alise-curve": "alise:curve",
    "alise-limit": "alise:limits",
}
"""What in which module gives the rows of an engine; imported when it runs."""


def execute(spec: Spec) -> pd.DataFrame:
    """All rows of a run: one per repetition, or one per request where ``detail`` says so."""
    if spec["engine"] not in ENGINES:
        raise unknown("engine", spec["engine"], ENGINES)
    module, function = ENGINES[spec["engine"]].split(":")
    return getattr(import_module(f"ssjf.experiments.runs.{module}"), function)(spec)
