"""``ssjf bench serve``: a model of the user's with plain vLLM and with the middleware."""

from collections.abc import Callable, Iterator, Sequence

import pandas as pd

from ssjf.analysis.server_load import BURST, PLAIN
from ssjf.config import SERVE_PREFIX
from ssjf.experiments.load_prompts import Asked, made_up, sampled
from ssjf.harness.bench_client import Load, measured
from ssjf.harness.server import LiveServer
from ssjf.serving import loading
from ssjf.serving.options import ServeOptions
from ssjf.workload.texts import load_texts

LABELS = {PLAIN: "vllm serve", "ssjf": "ssjf serve"}
IGNORING = {f"{SERVE_PREFIX}CLIENT_LIMIT": "ignore"}  # max_tokens says the true length here


def compared(
    model: str, vllm_options: Sequence[str], options: ServeOptions, data: str | None,
    requests: int, rate: float | None, context_tokens: int, seeds: int,
    tell: Callable[[str], None],
) -> pd.DataFrame:  # fmt: skip
    """Rows as of ``load.rows`` with the columns ``workload`` and ``series``.

    The servers run one after the other: a GPU has no room for both.
    """
    loading.check(options)
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
