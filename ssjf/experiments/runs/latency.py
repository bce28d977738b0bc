"""What proxies cost on this machine, as raw runs: by prompt and batch, and per real prompt."""

import time
from typing import Any

import numpy as np
import pandas as pd

from ssjf.errors import InputError
from ssjf.experiments import bench_proxy
from ssjf.experiments.grid import experiment
from ssjf.experiments.runs.training import proxy_folder
from ssjf.experiments.specs import CostRun, TrainingRun
from ssjf.proxy import io as folder
from ssjf.workload.texts import load_texts, prompt_hash

WARM_UP = 20  # predictions that are not timed: the first ones compile and fill caches


def costs(spec: CostRun) -> pd.DataFrame:
    """One row per size of prompt and batch: see ``bench_proxy.proxy``."""
    rows = bench_proxy.proxy(str(_folder(spec)))
    return _keyed(pd.DataFrame(rows).drop(columns="proxy"))


def latencies(spec: CostRun) -> pd.DataFrame:
    """One row per prompt of the test split: milliseconds from text to prediction, one by one."""
    workload = spec.workload
    prompts = load_texts(workload.data).split("test").prompts[: workload.prompts]
    predict = folder.load(_folder(spec)).predict
    for prompt in prompts[:WARM_UP]:
        predict([prompt])
    found = []
    for prompt in prompts:
        started = time.perf_counter()
        predict([prompt])
        found.append(1e3 * (time.perf_counter() - started))
    return _keyed(
        pd.DataFrame(
            {
                "prompt_hash": [prompt_hash(prompt) for prompt in prompts],
                "characters": np.array([len(prompt) for prompt in prompts], np.int32),
                "latency_ms": np.array(found, np.float32),
            }
        )
    )


def _folder(spec: CostRun) -> Any:
    """The trained proxy of the series in the experiment it was trained by."""
    of = str(spec.workload.of)
    for trained in experiment(of).specs():
        if not isinstance(trained, TrainingRun):
            continue
        if trained.series == spec.series and trained.seed == 0:
            path = proxy_folder(trained)
            if path.is_dir():
                return path
    raise InputError(
        f"the proxy {spec.series} is not in results/proxies; `ssjf run {of}` trains it once its "
        "run is deleted"
    )


def _keyed(rows: pd.DataFrame) -> pd.DataFrame:
    keys = {"x": np.float32(0), "seed": np.int32(0), "run": np.int32(0)}
    return pd.DataFrame(keys, index=rows.index).join(rows)
