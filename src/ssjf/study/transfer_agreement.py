"""How alike the lengths of two LLMs are: what a perfect predictor of one is worth for the other."""

from typing import Any

import numpy as np
import pandas as pd

from ssjf.request import FloatArray, IntArray
from ssjf.study.correlations import Kendall, spearman
from ssjf.study.llm_lengths import LlmLengths
from ssjf.study.transfer_rows import ALL, LISTED, Named, resampled_rows

Spec = dict[str, Any]
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def agreement(data: LlmLengths, spec: Spec) -> pd.DataFrame:
    """Every pair of LLMs: rank correlation of their lengths. Then quantiles over pairs."""
    n, lengths = len(data.prompts), data.output_tokens
    kendall = Kendall(lengths)
    listed = data.at(spec["llms"])

    def summary_spearman(rows: IntArray) -> Named:
        return _summaries("spearman", spearman(lengths[rows], lengths[rows]), listed)

    def summary_kendall(rows: IntArray) -> Named:
        return _summaries("kendall", kendall.tau(np.bincount(rows, minlength=n)), listed)

    one, other = np.triu_indices(len(data.llms), 1)
    pairs = [
        pd.DataFrame({"quantity": name, "of": np.array(data.llms)[one],
                      "llm": np.array(data.llms)[other], "value": found[one, other]})
        for name, found in (("spearman", spearman(lengths, lengths)), ("kendall", kendall.tau()))
    ]  # fmt: skip
    summaries = [
        resampled_rows(summary_spearman, n, spec["resamples"], spec["seed"]),
        resampled_rows(summary_kendall, n, spec["kendall_resamples"], spec["seed"]),
    ]
    return pd.concat([*pairs, *summaries], ignore_index=True)


def _summaries(quantity: str, found: FloatArray, listed: IntArray) -> Named:
    """Quantiles over pairs, of all LLMs and of the listed."""
    chosen = {ALL: found, LISTED: found[np.ix_(listed, listed)]}
    over = {name: part[np.triu_indices(len(part), 1)] for name, part in chosen.items()}
    return {
        (quantity, name, f"q{level:g}"): float(np.quantile(values, level))
        for name, values in over.items()
        for level in QUANTILES
    }
