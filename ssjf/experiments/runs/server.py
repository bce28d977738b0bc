"""Requests over HTTP to a vLLM server, with and without the middleware: raw runs, and `ssjf bench
serve` on a model of the user's.

The servers of a deployment are kept for the runs that follow, all of them: what is to be compared
is measured in turn, a minute apart. One that gets no request does nothing.
"""

import atexit
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ssjf.analysis.server_load import BURST, PLAIN
from ssjf.config import SERVE_PREFIX
from ssjf.errors import InputError
from ssjf.experiments.specs import ServerRun
from ssjf.harness.bench_client import Load, measured
from ssjf.harness.deployment import deployment
from ssjf.harness.interpreter import python
from ssjf.harness.models import make
from ssjf.harness.server import LiveServer, environment, options_of
from ssjf.proxy import io as proxy_folder
from ssjf.request import IntArray
from ssjf.serving import predictor
from ssjf.serving.options import ServeOptions
from ssjf.workload.texts import Texts, load_texts

Prompts = tuple[list[str], IntArray]
"""Prompts, and the lengths in tokens of their answers."""
WARM_UP = {"prompt": "Write a list of three words.", "max_tokens": 8, "ignore_eos": True}
_HARDWARE = "import json; from ssjf.harness.worker import hardware; print(json.dumps(hardware()))"
STREAM = 5  # of random numbers, beside those of steady.STREAMS
SIGMA = 0.5  # of the log-normal error that made-up lengths have, as `noise:0.5` has
_ASKS = (
    "What is the capital city of {}?", "Name three people who are known for {}.",
    "Did the Romans know {}? Answer yes or no.", "Translate '{}' into French.",
    "Define {} in one sentence.", "Give a synonym for {}.",
    "Write a haiku about {}.", "List ten facts about {}.",
    "Explain {} to a child.", "Summarise the history of {} in a paragraph.",
    "Write a detailed essay about {}, with an introduction and a conclusion.",
    "Write a short story about {}.",
    "Compare {} with what came before it, and say who gained from the change.",
    "Write an email to a colleague who asks for advice about {}.",
    "Write a Python program about {}, and explain how it works.",
    "Plan a lesson of one hour about {}, minute by minute.",
)  # fmt: skip
_SUBJECTS = (
    "bread", "the bicycle", "chess", "the moon", "opera", "vaccines", "tea", "lighthouses",
    "money", "bees", "railways", "the violin", "glass", "the calendar", "maps", "football",
)  # fmt: skip
LABELS = {PLAIN: "vllm serve", "ssjf": "ssjf serve"}
IGNORING = {f"{SERVE_PREFIX}CLIENT_LIMIT": "ignore"}  # max_tokens says the true length here


def rows(spec: ServerRun) -> pd.DataFrame:
    """A row per request of one run: see ``bench_client.measured``."""
    workload, has = spec.workload, deployment(spec.deployment)
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


def compared(
    model: str, vllm_options: Sequence[str], options: ServeOptions, data: str | None,
    requests: int, rate: float | None, context_tokens: int, seeds: int,
    tell: Callable[[str], None],
) -> pd.DataFrame:  # fmt: skip
    """Rows as of ``rows`` with the columns ``workload`` and ``series``, for a user's model.

    The servers run one after the other: a GPU has no room for both.
    """
    predictor.check(options)
    texts = None if data is None else load_texts(data)
    drawn = [
        made_up(requests, seed, options.proxy, context_tokens) if texts is None
        else sampled(texts, requests, seed, context_tokens) for seed in range(seeds)
    ]  # fmt: skip
    load, parts = Load(rate), []
    for series, own in ((PLAIN, None), ("ssjf", options)):
        tell(f"starting {LABELS[series]} {model}")
        with LiveServer(model, vllm_options, None if own is None else own.environment()) as server:
            for seed, (prompts, tokens) in enumerate(drawn):
                tell(f"sending {requests} requests for {tokens.sum()} tokens (seed {seed})")
                part = measured(server, prompts, tokens, load, seed)
                parts.append(part.assign(series=series, seed=seed))
    words = BURST if rate is None else f"{rate:g} requests/s"
    return pd.concat(parts, ignore_index=True).assign(workload=words)


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


def made_up_prompts() -> list[str]:
    """All prompts that are made up here: instructions for short and for long answers."""
    return [ask.format(subject) for ask, subject in product(_ASKS, _SUBJECTS)]


def made_up(n: int, seed: int, proxy: str, most_tokens: int) -> Prompts:
    """n made-up prompts, and lengths around what the proxy predicts of them.

    The true length is the prediction times a log-normal error of σ ``SIGMA``: this shows what the
    order does to a server if the proxy is so good, not how good it is.
    """
    known = made_up_prompts()
    if n > len(known):
        raise InputError(f"there are {len(known)} made-up prompts; {n} requests need --data")
    rng = np.random.default_rng([seed, STREAM])
    prompts = [known[i] for i in rng.choice(len(known), n, replace=False)]
    drawn = proxy_folder.load(proxy).predict(prompts).tokens
    drawn = drawn * np.exp(SIGMA * rng.standard_normal(n))
    most = most_tokens - max(map(len, prompts))
    return prompts, np.clip(np.round(drawn), 1, most).astype(np.int64)
