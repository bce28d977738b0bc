"""Answers of a real model: their lengths, how they ended, and the latency of the requests."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ssjf.request import FloatArray

DEGENERATE = 0.5
"""An answer loops if a larger share of its 4-grams repeats earlier ones."""


def lengths(answers: pd.DataFrame, by: str = "series") -> pd.DataFrame:
    """Summarise answers by a column: their number, tokens (mean, quantiles, max), shares (%).

    ``answers`` has columns output_tokens, finish_reason and repeated. *At the cap* are answers cut
    off at the token limit; *loops* are those beyond ``DEGENERATE``.
    """
    rows = []
    for key, part in answers.groupby(by, sort=False):
        tokens = part["output_tokens"]
        cells = {f"p{level}": int(tokens.quantile(level / 100, "lower"))
                 for level in (10, 50, 90, 99)}  # fmt: skip
        rows.append({by: key, "answers": len(part), "mean (tokens)": round(tokens.mean(), 1),
                     **cells,
                     "max": int(tokens.max()),
                     "at the cap (%)": _percent(part["finish_reason"] == "length"),
                     "loops (%)": _percent(part["repeated"] > DEGENERATE)})  # fmt: skip
    return pd.DataFrame(rows)


def _percent(mask: pd.Series) -> float:
    return round(100 * float(mask.mean()), 1)


def per_run(rows: pd.DataFrame, by: Sequence[str], clock: str = "") -> pd.DataFrame:
    """Compute the metrics of each run (``by``, series, seed, run) from its rows per request.

    Times are in steps, or in seconds with clock ``cpu_`` or ``wall_``. Columns: jct_mean, _p99,
    _p99.9 and _max, ttft_mean, ttft_p99, normalised (JCT per output token), overtakings (see
    ``overtakings``).
    """
    keys = [*by, "series", "seed", "run"]
    grouped = rows.groupby(keys, sort=False)
    return grouped[[*rows.columns.difference(keys)]].apply(_run, clock=clock).reset_index()


def _run(rows: pd.DataFrame, clock: str) -> pd.Series:
    arrived, begun, first, finished = (
        rows[f"{clock}{name}"].to_numpy(np.float64)
        for name in ("arrived_at", "scheduled_at", "first_token_at", "finished_at")
    )
    jct, ttft = finished - arrived, first - arrived
    tail = {f"jct_{name}": np.quantile(jct, level)
            for name, level in (("p99", 0.99), ("p99.9", 0.999), ("max", 1.0))}  # fmt: skip
    return pd.Series({
        "jct_mean": jct.mean(), **tail, "ttft_mean": ttft.mean(),
        "ttft_p99": np.quantile(ttft, 0.99), "normalised": (jct / rows["output_tokens"]).mean(),
        "overtakings": overtakings(arrived, begun),
    })  # fmt: skip


def overtakings(arrived: FloatArray, begun: FloatArray) -> float:
    """Pairs of requests whose later arrival was scheduled first, per request."""
    order = np.argsort(arrived, kind="stable")
    started = begun[order]
    return float(np.triu(started[None, :] < started[:, None], 1).sum() / len(started))


def against_draws(draws: pd.DataFrame, predicted: pd.DataFrame) -> pd.DataFrame:
    """Pair predictions with sampled answers, as ``predictions.quality_of`` reads them.

    Parameters
    ----------
    draws: prompt_hash, sample, output_tokens. predicted: prompt_hash, series, predicted_tokens.

    Returns
    -------
    A row per answer and predictor, for the prompts that every predictor has. Two more series bound
    what a predictor that sees only the prompt can do: ``second-draw``, each other answer to the
    same prompt, and ``other-draws``, the mean of the other answers.
    """
    counts = predicted.groupby("prompt_hash")["series"].nunique()
    everywhere = counts.index[counts == counts.max()]
    one = draws.loc[draws["prompt_hash"].isin(everywhere), ["prompt_hash", "sample",
                                                           "output_tokens"]]  # fmt: skip
    tokens, by_prompt = one["output_tokens"], one.groupby("prompt_hash")["output_tokens"]
    others = (by_prompt.transform("sum") - tokens) / (by_prompt.transform("size") - 1)
    pairs = one.merge(one.rename(columns={"output_tokens": "predicted_tokens"}), on="prompt_hash")
    parts = [
        one.merge(predicted[["prompt_hash", "series", "predicted_tokens"]], on="prompt_hash"),
        pairs[pairs["sample_x"] != pairs["sample_y"]].assign(series="second-draw"),
        one.assign(series="other-draws", predicted_tokens=others),
    ]
    both = pd.concat(parts, ignore_index=True)
    return both.assign(conversation=both.groupby("prompt_hash").ngroup())


def same_answers(rows: pd.DataFrame, known: pd.DataFrame) -> tuple[int, int]:
    """Count the answers that equal the known answer to their prompt token by token, and all."""
    answers = known.drop_duplicates("prompt_hash").set_index("prompt_hash")["answer"]
    return int((rows["prompt_hash"].map(answers) == rows["answer"]).sum()), len(rows)
