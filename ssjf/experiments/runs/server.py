"""Requests over HTTP to a vLLM server, with and without the middleware: measured, as raw runs.

The servers of a deployment are kept for the runs that follow, all of them: what is to be compared
is measured in turn, a minute apart. One that is not asked does nothing.
"""

import atexit
import json
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ssjf.config import SERVE_PREFIX
from ssjf.experiments.load_prompts import Asked, sampled
from ssjf.experiments.specs import ServerRun
from ssjf.harness.bench_client import Load, measured
from ssjf.harness.deployment import deployment
from ssjf.harness.engine import python
from ssjf.harness.models import make
from ssjf.harness.server import LiveServer, environment, options_of
from ssjf.serving.options import ServeOptions
from ssjf.workload.texts import Texts, load_texts

WARM_UP = {"prompt": "Write a list of three words.", "max_tokens": 8, "ignore_eos": True}
_HARDWARE = "import json; from ssjf.harness.worker import hardware; print(json.dumps(hardware()))"


def rows(spec: ServerRun) -> pd.DataFrame:
    """A row per request of one run: see ``load_client.measured``.

    ``serve``: the options of ``ssjf serve``; without it the server is ``vllm serve``. ``workload``:
    which texts, how many ``requests``, their ``rate`` or ``concurrency``, and ``output_tokens``
    where all answers are to be as long.
    """
    workload = spec.workload
    prompts, tokens = prompts_of(spec, workload.requests)
    if workload.output_tokens is not None:
        tokens = np.full(len(tokens), workload.output_tokens)
    load = Load(workload.rate, workload.concurrency)
    server = live(spec.deployment, spec.slots, spec.serve)
    found = measured(server, prompts, tokens, load, spec.seed)
    found = found.assign(x=workload.rate or 0.0, seed=spec.seed, run=0)
    found.attrs["environment"] = environment_of(spec)
    return found


def prompts_of(spec: ServerRun, n: int) -> Asked:
    """n prompts of a run's data with the lengths of their answers."""
    workload = spec.workload
    texts = _texts(workload.data, workload.column)
    return sampled(texts, n, spec.seed, deployment(spec.deployment).context_tokens)


def environment_of(spec: ServerRun) -> dict[str, Any]:
    """What a run's servers ran on."""
    has = deployment(spec.deployment).as_json()
    told = {name: value for name, value in has.items() if name != "clock"}
    return _hardware() | {"deployment": told, "clock": "of the client"}


def live(deployment_name: str, slots: int, serve: dict[str, Any] | None) -> LiveServer:
    """The live server of a deployment: ``ssjf serve`` with these options, else ``vllm serve``."""
    return _server(deployment_name, slots, json.dumps(serve))


@cache
def _texts(data: str, column: str) -> Texts:
    return load_texts(data, label=column).split("test").distinct()


@cache
def _server(deployment_name: str, slots: int, serve: str) -> LiveServer:
    """The live server of a deployment, warmed up; ``serve`` are its options as JSON, or null."""
    has, own = deployment(deployment_name), json.loads(serve)
    options = None
    if own is not None:
        named = {f"{SERVE_PREFIX}{name.upper()}": str(value) for name, value in own.items()}
        options = ServeOptions.from_environment(named)
    model = _model(has.shape)
    arguments = options_of(has, slots, model)
    server = LiveServer(str(model), arguments, None if options is None else options.environment())
    server.start()
    atexit.register(server.close)
    for _ in range(2 * slots):
        server.post("/v1/completions", WARM_UP | {"model": str(model)})
    return server


@cache
def _model(shape: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="ssjf-model-"))
    atexit.register(shutil.rmtree, folder, True)
    return make(shape, folder / shape)


@cache
def _hardware() -> dict[str, Any]:
    command = [str(python()), "-c", _HARDWARE]
    done = subprocess.run(command, env=environment(str(Path.cwd())), stdout=subprocess.PIPE,
                          check=True)  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])
