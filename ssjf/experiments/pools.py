"""Pools of requests with true and predicted lengths: a row per prompt, without text.

Pools of trained proxies come from raw runs, so that scheduling with any proxy needs neither the
texts nor the proxy.
"""

import numpy as np
import pandas as pd

from ssjf.errors import InputError
from ssjf.experiments.grid import rows
from ssjf.experiments.sweep_draws import part
from ssjf.proxy import io as proxy_folder
from ssjf.workload import synthetic
from ssjf.workload.texts import load_texts, prompt_hash

DRAWN = "draw_"  # prefix of columns with lengths of further answers to the same prompt
LONGEST_PROMPT = 512


def predicted(
    of: list[str], seed: int = 0, label: str | None = None, turn: int | None = None
) -> pd.DataFrame:
    """Read a row per prompt that every series of the experiments ``of`` predicted.

    Columns: x, seed, run, arrived_at (0), prompt_hash, output_tokens, one per series (tokens) and,
    if there are several answers per prompt, ``draw_1``… and their mean ``other_draws``. ``label``
    and ``turn`` select a workload and a round of conversation.
    """
    pool, *others = (_wide(name, seed, label, turn) for name in of)
    for other in others:
        pool = pool.join(other.drop(columns=["output_tokens", *_drawn(other)]), how="inner")
    if pool.empty:
        raise InputError(f"experiments {', '.join(of)} have no prompt in common")
    if _drawn(pool):
        pool["other_draws"] = pool[_drawn(pool)].mean(axis=1)
    numbers = pool.columns.drop("output_tokens")
    pool = pool.astype(dict.fromkeys(numbers, np.float32)).rename_axis("prompt_hash").reset_index()
    return part(pool, slice(None), np.zeros(len(pool)))


def _wide(name: str, seed: int, label: str | None, turn: int | None) -> pd.DataFrame:
    """A row per prompt: output_tokens, its further draws, and each series' prediction."""
    stored = rows(name, lambda spec: getattr(spec, "seed", 0) == seed)
    stored = stored if label is None else stored[stored["workload"] == label]
    stored = stored if turn is None else stored[stored["turn"] == turn]
    if stored.empty:
        raise InputError(f"experiment {name} has no rows of {label}, turn {turn}")
    key, conversation = stored["prompt_hash"], stored["conversation"]
    if not conversation.eq(key).all():
        # Add the conversation to the key of a turn: different people use the same words.
        key = conversation + "-" + stored["turn"].astype(str) + "-" + key
    stored = stored.assign(key=key)
    truth = stored.groupby("key", sort=True)[["output_tokens", *_drawn(stored)]].first()
    predictions = stored.pivot_table("predicted_tokens", "key", "series", "first")
    return truth.join(predictions.dropna(), how="inner")  # a series may lack others' prompts


def _drawn(frame: pd.DataFrame) -> list[str]:
    return [name for name in frame if str(name).startswith(DRAWN)]


def prompt_tokens(data: str) -> pd.DataFrame:
    """Count the prompt tokens (MiniLM's word pieces) of a test split, with the prompts' hashes."""
    from tokenizers import Tokenizer

    from ssjf.proxy.encoder.network import backbone

    texts = load_texts(data).split("test")
    tokenizer = Tokenizer.from_str(backbone("minilm")[0])
    tokenizer.no_truncation()
    encoded = (tokenizer.encode(prompt, add_special_tokens=False) for prompt in texts.prompts)
    counts = np.clip([len(each.ids) for each in encoded], 1, LONGEST_PROMPT)
    hashes = [prompt_hash(prompt) for prompt in texts.prompts]
    return pd.DataFrame({"prompt_hash": hashes, "prompt_tokens": counts.astype(np.int16)})


def log_normal(mean, sigma, most, requests, seed) -> pd.DataFrame:
    """Synthetic log-normal lengths with the given mean (tokens), at most ``most``."""
    output = synthetic.lognormal(requests, mean, sigma, np.random.default_rng(seed), high=most)
    return part(pd.DataFrame({"output_tokens": output}), slice(None), np.zeros(requests))


def proxy_test(proxy: str, data: str, column: str) -> pd.DataFrame:
    """Predictions of a proxy for the test split of a text data set."""
    texts = load_texts(data, label=column).split("test")
    pool = pd.DataFrame(
        {
            "output_tokens": texts.output_tokens.astype(np.int16),
            "predicted_tokens": proxy_folder.load(proxy).predict(texts.prompts).tokens,
            "prompt_hash": [prompt_hash(prompt) for prompt in texts.prompts],
        }
    )
    pool = pool.astype({"predicted_tokens": np.float32})
    return part(pool, slice(None), np.zeros(len(pool)))
