"""Pools of requests made of what proxies said: true lengths, and a column per proxy.

They come from raw runs of trainings alone, so that scheduling with any proxy needs neither the
texts nor the proxy.
"""

import pandas as pd

from ssjf.errors import InputError
from ssjf.experiments.grid import rows

DRAWN = "draw_"  # columns of the lengths of further answers to the same prompt


def predicted(
    of: list[str], seed: int = 0, label: str | None = None, turn: int | None = None
) -> pd.DataFrame:
    """One row per prompt that every series of the experiments ``of`` predicted.

    Columns x, seed, run, arrived_at (0), output_tokens, prompt_hash, one per series (tokens),
    and, where there are several draws of an answer, ``draw_1``… and their mean ``other_draws``.
    ``label`` and ``turn`` keep a workload and a round of conversation.
    """
    parts = [_wide(name, seed, label, turn) for name in of]
    pool = parts[0]
    for other in parts[1:]:
        pool = pool.join(other.drop(columns=["output_tokens", *_drawn(other)]), how="inner")
    if pool.empty:
        raise InputError(f"experiments {', '.join(of)} have no prompt in common")
    drawn = _drawn(pool)
    if drawn:
        pool["other_draws"] = pool[drawn].mean(axis=1)
    numbers = pool.drop(columns="output_tokens").astype("float32")
    keys = {"x": 0.0, "seed": 0, "run": 0, "arrived_at": 0.0}
    found = (
        pool[["output_tokens"]].join(numbers).reset_index().rename(columns={"key": "prompt_hash"})
    )
    return pd.DataFrame(keys, index=found.index).join(found)


def _wide(name: str, seed: int, label: str | None, turn: int | None) -> pd.DataFrame:
    """A row per prompt: output_tokens, its further draws, and what each series predicted."""
    told = rows(name, lambda spec: getattr(spec, "seed", 0) == seed)
    told = told if label is None else told[told["workload"] == label]
    told = told if turn is None else told[told["turn"] == turn]
    if told.empty:
        raise InputError(f"experiment {name} has no rows of {label}, turn {turn}")
    # A turn is named by its conversation too: people open with the same words.
    keys = told["conversation"] + "-" + told["turn"].astype(str) + "-" + told["prompt_hash"]
    alone = told["conversation"].eq(told["prompt_hash"]).all()
    told = told.assign(key=told["prompt_hash"] if alone else keys)
    shared = ["output_tokens", *_drawn(told)]
    truth = told.groupby("key", sort=True)[shared].first()
    said = told.pivot_table("predicted_tokens", "key", "series", "first")
    return truth.join(said.dropna(), how="inner")  # a series may lack prompts that others have


def _drawn(frame: pd.DataFrame) -> list[str]:
    return [name for name in frame if str(name).startswith(DRAWN)]
