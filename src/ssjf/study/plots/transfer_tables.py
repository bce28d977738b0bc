"""Transfer between LLMs in numbers."""

import pandas as pd

from ssjf.study import bootstrap
from ssjf.study.plots.transfer_curves import few_shot_estimates

COLUMNS = ["value", "low", "high"]
WORDS = {
    ("spearman", "all", "q0.05"): "lengths of two LLMs, all pairs: Spearman's ρ, 5th percentile",
    ("spearman", "all", "q0.5"): "lengths of two LLMs, all pairs: Spearman's ρ, median",
    ("spearman", "all", "q0.95"): "lengths of two LLMs, all pairs: Spearman's ρ, 95th percentile",
    ("kendall", "all", "q0.5"): "lengths of two LLMs, all pairs: Kendall's τ-b, median",
    ("spearman", "listed", "q0.5"): "lengths of two LLMs, listed pairs: Spearman's ρ, median",
    ("kendall", "listed", "q0.5"): "lengths of two LLMs, listed pairs: Kendall's τ-b, median",
    ("spearman", "listed", "own"): "predictor trained on the LLM itself, listed: ρ, median",
    ("spearman", "listed", "another"): "predictor trained on another LLM, listed: ρ, median",
    ("loss", "listed", "another"): "what the other LLM's predictor loses, listed: ρ, median",
    ("spearman", "shipped", "listed"): "shipped proxy (Vicuna-7B), listed: ρ, median",
    ("spearman", "shipped", "all"): "shipped proxy (Vicuna-7B), all: ρ, median",
    ("spearman", "own", "all"): "predictor trained on the LLM itself, all: ρ, median",
    ("gain", "shipped", "all"): "shipped proxy less the LLM's own predictor, all: ρ, median",
    ("factor", "shipped", "all"): "true over predicted length (shipped), median of medians, all",
}


def transfer_summary(*measured: pd.DataFrame) -> pd.DataFrame:
    """The summaries of the measures in words, with their intervals over prompts."""
    found = pd.concat(measured).set_index(["quantity", "of", "llm"])
    rows = [[words, *found.loc[key, COLUMNS]] for key, words in WORDS.items()]
    return pd.DataFrame(rows, columns=["measure", *COLUMNS]).astype(dict.fromkeys(COLUMNS, float))


def few_shot_table(shots: pd.DataFrame) -> pd.DataFrame:
    """Error and rank correlation by examples and method, and the error against one factor."""
    error, rank = (few_shot_estimates(shots, metric) for metric in ("mae_log", "spearman"))
    error = error.rename(columns={"value": "mean |log error|", "low": "low", "high": "high"})
    rank = rank.rename(columns={"value": "Spearman's ρ", "low": "ρ low", "high": "ρ high"})
    table = error.merge(rank, on=["k", "method"])
    paired = [_against_factor(shots, row.k, row.method) for row in table.itertuples()]
    names = ["error against one factor", "against low", "against high"]
    table[names] = pd.DataFrame(paired, index=table.index)
    return table.rename(columns={"k": "examples"})


def _against_factor(shots: pd.DataFrame, k: int, method: str) -> bootstrap.Estimate:
    """The mean difference of error, paired by LLM; NaN where there is nothing to compare."""
    wide = shots[shots["k"] == k].pivot_table("mae_log", "llm", "method")
    if method == "factor" or "factor" not in wide:
        return bootstrap.Estimate(*[float("nan")] * 3)
    return bootstrap.difference(wide["factor"], wide[method])
