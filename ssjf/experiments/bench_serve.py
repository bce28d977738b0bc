"""``ssjf bench serve``: a model of the user's with plain vLLM and with the middleware."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np
import pandas as pd

from ssjf.analysis.server_load import BURST, PLAIN
from ssjf.config import SERVE_PREFIX
from ssjf.errors import InputError
from ssjf.harness.bench_client import Load, measured
from ssjf.harness.server import LiveServer
from ssjf.proxy import io as folder
from ssjf.request import IntArray
from ssjf.serving import predictor
from ssjf.serving.options import ServeOptions
from ssjf.workload.texts import Texts, load_texts

Asked = tuple[list[str], IntArray]
STREAM = 5  # of random numbers, beside those of open_loop.STREAMS
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


def compared(
    model: str, vllm_options: Sequence[str], options: ServeOptions, data: str | None,
    requests: int, rate: float | None, context_tokens: int, seeds: int,
    tell: Callable[[str], None],
) -> pd.DataFrame:  # fmt: skip
    """Rows of ``bench_client.measured`` with the columns ``workload`` and ``series``.

    The servers run one after the other: a GPU has no room for both.
    """
    predictor.check(options)
    asked = list(_asked(data, requests, seeds, options.proxy, context_tokens))
    load, found = Load(rate), []
    for series, own in ((PLAIN, None), ("ssjf", options)):
        tell(f"starting {LABELS[series]} {model}")
        with LiveServer(model, vllm_options, None if own is None else own.environment()) as server:
            for seed, (prompts, tokens) in enumerate(asked):
                tell(f"sending {requests} requests for {tokens.sum()} tokens (seed {seed})")
                rows = measured(server, prompts, tokens, load, seed)
                found.append(rows.assign(series=series, seed=seed))
    words = BURST if rate is None else f"{rate:g} requests/s"
    return pd.concat(found, ignore_index=True).assign(workload=words)


def _asked(
    data: str | None, requests: int, seeds: int, proxy: str, context_tokens: int
) -> Iterator[Asked]:
    texts = None if data is None else load_texts(data)
    for seed in range(seeds):
        if texts is None:
            yield made_up(requests, seed, proxy, context_tokens)
        else:
            yield sampled(texts, requests, seed, context_tokens)


def sampled(texts: Texts, n: int, seed: int, most_tokens: int) -> Asked:
    """n different prompts with the lengths of their answers, drawn by ``seed``.

    Only those that fit: characters (no tokenizer makes more tokens of them than bytes) and answer
    together ``most_tokens``. InputError where there are fewer.
    """
    fits = [
        len(prompt.encode("utf-8", "replace")) + tokens <= most_tokens and len(prompt) > 1
        for prompt, tokens in zip(texts.prompts, texts.output_tokens, strict=True)
    ]
    rows = np.flatnonzero(fits)
    if len(rows) < n:
        raise InputError(f"{n} requests are asked for and {len(rows)} of {len(texts)} prompts fit "
                         f"{most_tokens} tokens")  # fmt: skip
    rng = np.random.default_rng([seed, STREAM])
    chosen = texts.take(rng.choice(rows, n, replace=False))
    return chosen.prompts, chosen.output_tokens


def made_up(n: int, seed: int, proxy: str, most_tokens: int) -> Asked:
    """n made-up prompts, and lengths around what the proxy says of them.

    The true length is the prediction times a log-normal error of σ ``SIGMA``: this shows what the
    order does to a server if the proxy is so good, not how good it is.
    """
    known = [ask.format(subject) for ask, subject in product(_ASKS, _SUBJECTS)]
    if n > len(known):
        raise InputError(f"there are {len(known)} made-up prompts; {n} requests need --data")
    rng = np.random.default_rng([seed, STREAM])
    prompts = [known[i] for i in rng.choice(len(known), n, replace=False)]
    said = folder.load(proxy).predict(prompts).tokens
    drawn = said * np.exp(SIGMA * rng.standard_normal(n))
    most = most_tokens - max(map(len, prompts))
    return prompts, np.clip(np.round(drawn), 1, most).astype(np.int64)
