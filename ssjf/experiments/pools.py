"""Pools of requests made of what proxies said: true lengths, and a column per proxy.

They come from raw runs of trainings alone, so that scheduling with any proxy needs neither the
texts nor the proxy.
"""

import numpy as np
import pandas as pd

from ssjf.errors import InputError
from ssjf.experiments.grid import experiment, rows
from ssjf.proxy import predict
from ssjf.request import PAPER_THRESHOLDS, Requests

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


def pool_of(name: str) -> Requests:
    """The requests (with their predictions) that an experiment draws from."""
    from ssjf.experiments.draws import draw, to_requests  # which draws from pools itself

    return to_requests(draw(experiment(name).workload["pool"]))


def agreement(name: str) -> pd.Series:
    """Kendall's τ-b of every predictor of an experiment with the truth, by series."""
    from scipy.stats import kendalltau

    pool, taus = pool_of(name), {"sjf": 1.0}
    for series in experiment(name).series:
        if "predictor" in series:
            predicted = predict(series["predictor"], pool, np.random.default_rng(0))
            tau = kendalltau(predicted, pool.output_tokens, method="asymptotic").statistic
            taus[series["series"]] = tau
    return pd.Series(taus, name="tau")


def authors_predictions(column: str, rows: int | None = None) -> pd.DataFrame:
    """The SSJF authors' published predictions (``cls3`` or ``cls5``) on their own test split.

    Rows per prompt as a training's (the first ``rows`` of 85,482), a class decoded to the mean
    true length of its members.
    """
    from ssjf.experiments.draws import draw

    pool = draw({"draw": "length-pool", "requests": 100_000, "seed": 42}).iloc[:rows]
    thresholds = PAPER_THRESHOLDS if column == "cls5" else PAPER_THRESHOLDS[1::2]
    means = pool.groupby(column)["output_tokens"].mean()
    return pd.DataFrame(
        {
            "conversation": np.arange(len(pool)).astype(str),
            "output_tokens": pool["output_tokens"],
            "true_class": np.searchsorted(thresholds, pool["output_tokens"], side="right"),
            "predicted_class": pool[column],
            "predicted_tokens": pool[column].map(means),
        }
    )
