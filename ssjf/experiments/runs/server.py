"""Requests over HTTP to a vLLM server, with and without the middleware.

The servers of a deployment are kept for the runs that follow, all of them: what is to be compared
is measured in turn, a minute apart. One that gets no request does nothing.
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
from ssjf.errors import InputError
from ssjf.experiments.specs import ServerRun
from ssjf.experiments.workloads import HttpLoad
from ssjf.harness.bench_client import Load, measured
from ssjf.harness.deployment import deployment
from ssjf.harness.interpreter import python
from ssjf.harness.models import make
from ssjf.harness.server import LiveServer, environment, options_of
from ssjf.request import IntArray
from ssjf.serving.options import ServeOptions
from ssjf.workload.texts import Texts, load_texts

Prompts = tuple[list[str], IntArray]
"""Prompts, and the lengths in tokens of their answers."""
WARM_UP = {"prompt": "Write a list of three words.", "max_tokens": 8, "ignore_eos": True}
_HARDWARE = "import json; from ssjf.harness.worker import hardware; print(json.dumps(hardware()))"
STREAM = 5  # of random numbers, beside those of steady.STREAMS


def rows(spec: ServerRun) -> pd.DataFrame:
    """A row per request of one run: see ``bench_client.measured``."""
    workload, has = spec.workload, deployment(spec.deployment)
    assert isinstance(workload, HttpLoad)
    texts = _texts(workload.data, workload.column)
    prompts, tokens = sampled(texts, workload.requests, spec.seed, has.context_tokens)
    if workload.output_tokens is not None:
        tokens = np.full(len(tokens), workload.output_tokens)
    load = Load(workload.rate, workload.concurrency)
    server = _server(spec.deployment, spec.slots, json.dumps(spec.serve))
    table = measured(server, prompts, tokens, load, spec.seed)
    table = table.assign(x=workload.rate or 0.0, seed=spec.seed, run=0)
    options = {name: value for name, value in has.as_json().items() if name != "clock"}
    table.attrs["environment"] = hardware() | {"deployment": options, "clock": "of the client"}
    return table


@cache
def _texts(data: str, column: str) -> Texts:
    return load_texts(data, label=column).split("test").distinct()


@cache
def _server(deployment_name: str, slots: int, serve: str) -> LiveServer:
    """The live server of a deployment, warmed up: ``ssjf serve``, or ``vllm serve``.

    ``serve``: the options of ``ssjf serve`` as JSON, or null.
    """
    has, own = deployment(deployment_name), json.loads(serve)
    options = None
    if own is not None:
        named = {f"{SERVE_PREFIX}{name.upper()}": str(value) for name, value in own.items()}
        options = ServeOptions.from_environment(named)
    model = has.folder() or _model(str(has.shape))
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
def hardware() -> dict[str, Any]:
    """What a server runs on: see ``worker.hardware``."""
    command = [str(python()), "-c", _HARDWARE]
    done = subprocess.run(command, env=environment(str(Path.cwd())), stdout=subprocess.PIPE,
                          check=True)  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def sampled(texts: Texts, n: int, seed: int, most_tokens: int) -> Prompts:
    """n different prompts with the lengths of their answers, drawn by ``seed``.

    Only those that fit: characters (no tokenizer makes more tokens of them than bytes) and answer
    together ``most_tokens``. InputError where there are fewer.
    """
    fits = [
        len(prompt.encode("utf-8", "replace")) + tokens <= most_tokens and len(prompt) > 1
        for prompt, tokens in zip(texts.prompts, texts.output_tokens, strict=True)
    ]
    candidates = np.flatnonzero(fits)
    if len(candidates) < n:
        raise InputError(
            f"{n} requests are asked for and {len(candidates)} of {len(texts)} prompts fit "
            f"{most_tokens} tokens"
        )
    rng = np.random.default_rng([seed, STREAM])
    chosen = texts.take(rng.choice(candidates, n, replace=False))
    return chosen.prompts, chosen.output_tokens
