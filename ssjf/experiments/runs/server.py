"""Requests over HTTP to a vLLM server, with and without the middleware.

All servers of a deployment stay up for later runs, so that compared runs alternate within minutes.
"""

import atexit
import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
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
from ssjf.harness.deployment import Deployment, deployment
from ssjf.harness.interpreter import python
from ssjf.harness.models import make
from ssjf.harness.server import LiveServer, environment, options_of
from ssjf.request import IntArray
from ssjf.serving.options import ServeOptions
from ssjf.workload.texts import Texts, load_texts

Prompts = tuple[list[str], IntArray]
"""Prompts, and the lengths of their answers in tokens."""
WARM_UP = {"prompt": "Write a list of three words.", "max_tokens": 8, "ignore_eos": True}
_HARDWARE = "import json; from ssjf.harness.worker import hardware; print(json.dumps(hardware()))"
STREAM = 5  # a random stream besides those of steady.STREAMS


def rows(spec: ServerRun) -> pd.DataFrame:
    """Make a row per request of one run: see ``bench_client.measured``."""
    workload, has = spec.workload, deployment(spec.deployment)
    assert isinstance(workload, HttpLoad)  # by its engine
    texts = _texts(workload.data, workload.column)
    prompts, tokens = sampled(texts, workload.requests, spec.seed, has.context_tokens)
    if workload.output_tokens is not None:
        tokens = np.full(len(tokens), workload.output_tokens)
    load = Load(workload.rate, workload.concurrency)
    server = _server(spec.deployment, spec.slots, json.dumps(spec.serve))
    table = measured(server, prompts, tokens, load, spec.seed)
    table = table.assign(x=workload.rate or 0.0, seed=spec.seed, run=0)
    table.attrs["environment"] = environment_of(has)
    return table


@cache
def _texts(data: str, column: str) -> Texts:
    return load_texts(data, label=column).split("test").distinct()


@cache
def _server(deployment_name: str, slots: int, serve: str) -> LiveServer:
    """Start and warm up a server of a deployment: ``ssjf serve``, or ``vllm serve``.

    ``serve``: the options of ``ssjf serve`` as JSON, or null.
    """
    server = live_server(deployment(deployment_name), slots, options_from(json.loads(serve)))
    server.start()
    atexit.register(server.close)
    for _ in range(2 * slots):
        server.post("/v1/completions", WARM_UP | {"model": server.model})
    return server


def options_from(values: Mapping[str, Any] | None) -> ServeOptions | None:
    """Options of ``ssjf serve`` from a specification; None stands for plain ``vllm serve``."""
    if values is None:
        return None
    named = {f"{SERVE_PREFIX}{name.upper()}": str(value) for name, value in values.items()}
    return ServeOptions.from_environment(named)


def live_server(
    has: Deployment, slots: int, options: ServeOptions | None, more: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
) -> LiveServer:  # fmt: skip
    """Make a server of a deployment, not yet started; see ``options_from``.

    more: further command-line options. variables: further environment variables.
    """
    model = has.folder() or _model(str(has.shape))
    arguments = [*options_of(has, slots, model), *more]
    own = None if options is None else options.environment()
    return LiveServer(str(model), arguments, own, environment(str(model)) | dict(variables or {}))


@cache
def _model(shape: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="ssjf-model-"))
    atexit.register(shutil.rmtree, folder, True)
    return make(shape, folder / shape)


def environment_of(has: Deployment) -> dict[str, Any]:
    """The environment of rows measured by a client of a deployment's server."""
    options = {name: value for name, value in has.as_json().items() if name != "clock"}
    return hardware() | {"deployment": options, "clock": "of the client"}


@cache
def hardware() -> dict[str, Any]:
    """The hardware of servers: see ``worker.hardware``."""
    command = [str(python()), "-c", _HARDWARE]
    done = subprocess.run(command, env=environment(str(Path.cwd())), stdout=subprocess.PIPE,
                          check=True)  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def sampled(texts: Texts, n: int, seed: int, most_tokens: int) -> Prompts:
    """Draw n different prompts with the lengths of their answers.

    Only prompts whose bytes (an upper bound of their tokens) and answer fit ``most_tokens``.
    InputError if there are fewer than n.
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
