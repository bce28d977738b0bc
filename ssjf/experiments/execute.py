"""From a specification to its rows: build the workload, serve it, measure."""

from collections.abc import Callable
from typing import Any

import pandas as pd

from ssjf.experiments.runs import alise, latency, published, server, steady, training, vllm
from ssjf.experiments.specs import Run

ROWS: dict[str, Callable[[Any], pd.DataFrame]] = {
    "published": published.rows,
    "simulator": steady.rows,
    "training": training.predictions,
    "cost": latency.costs,
    "latency": latency.latencies,
    "vllm": vllm.rows,
    "vllm-steps": vllm.steps,
    "vllm-anatomy": vllm.anatomy,
    "vllm-swap": vllm.swapping,
    "serve-load": server.rows,
    "alise-curve": alise.curve,
    "alise-limit": alise.limits,
}
"""What makes the rows of an engine."""


def execute(spec: Run) -> pd.DataFrame:
    """All rows of a run: one per repetition, or one per request where ``detail`` says so."""
    return ROWS[spec.engine](spec)
