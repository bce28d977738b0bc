"""How good the predictions of raw runs are, with intervals over prompts.

``runs`` are rows of a training experiment: output_tokens, predicted_tokens, quantiles
``q0.05``…, classes, and the conversation that a prompt opens or belongs to.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from ssjf.analysis.bootstrap import resampled
from ssjf.analysis.quality import (
    CLASS_METRICS,
    ERROR_METRICS,
    RANK_METRICS,
    class_quality,
    interval_coverage,
    quality,
)
from ssjf.request import IntArray

RESAMPLES = 200
LOW, HIGH = "q0.1", "q0.9"  # the ends of the 80 % interval
WORDS = {
    "kendall_tau_b": "Kendall's τ-b",
    "spearman": "Spearman's ρ",
    "spearman_of_mean": "Spearman's ρ, mean of draws",
    "pairs_2x": "pairs 2× apart ordered rightly",
    "mae": "MAE (tokens)",
    "rmse": "RMSE (tokens)",
    "r2": "R²",
    "accuracy": "accuracy, 5 classes",
    "macro_f1": "macro F1",
    "precision": "macro precision",
    "recall": "macro recall",
    "within_one_class": "within one class",
    "coverage_80": "coverage of the 80 % interval",
}
Arrays = dict[str, np.ndarray]


def quality_of(
    runs: pd.DataFrame, by: tuple[str, ...] = ("series",), metrics: Iterable[str] = WORDS
) -> pd.DataFrame:
    """Columns ``by``, metric, value, low, high: 95 % bootstrap intervals over conversations.

    A metric is left out where the rows have no columns for it: the mean of draws, the interval.
    """
    parts = [_quality_of(part, metrics).assign(**dict(zip(by, key, strict=True)))
             for key, part in runs.groupby([*by], sort=False)]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _quality_of(part: pd.DataFrame, metrics: Iterable[str]) -> pd.DataFrame:
    arrays = _arrays(part)
    lacking = {"spearman_of_mean": "mean", "coverage_80": "low"}
    names = [name for name in metrics if lacking.get(name, "truth") in arrays]

    def measure(rows: IntArray) -> dict[str, float]:
        return _metrics(names, {name: array[rows] for name, array in arrays.items()})

    return resampled(measure, len(part), part["conversation"].to_numpy(), RESAMPLES)


def _metrics(names: list[str], a: Arrays) -> dict[str, float]:
    """Metrics of ``WORDS`` by name; classes are those that the predictor was trained on."""
    lengths = [name for name in names if name in ERROR_METRICS + RANK_METRICS]
    values = quality(a["truth"], a["predicted"], lengths)
    if not {*CLASS_METRICS}.isdisjoint(names):
        values |= class_quality(a["true_class"], a["predicted_class"])
    if "spearman_of_mean" in names:
        of_mean = quality(a["mean"], a["predicted"], ["spearman"])
        values["spearman_of_mean"] = of_mean["spearman"]
    if "coverage_80" in names:
        values["coverage_80"] = interval_coverage(a["truth"], a["low"], a["high"])
    return {name: values[name] for name in names}


def _arrays(part: pd.DataFrame) -> Arrays:
    """The columns that the metrics read; ``mean`` (of all draws), ``low`` and ``high`` if known."""
    draws = [name for name in part if str(name).startswith("draw_")]
    columns = {"truth": part["output_tokens"], "predicted": part["predicted_tokens"]}
    columns |= {name: part[name] for name in ("true_class", "predicted_class") if name in part}
    if draws and part[draws].notna().all(axis=None):
        columns["mean"] = part[["output_tokens", *draws]].mean(axis=1)
    if LOW in part and part[LOW].notna().all():
        columns |= {"low": part[LOW], "high": part[HIGH]}
    return {name: column.to_numpy(np.float64) for name, column in columns.items()}


def confusion(part: pd.DataFrame) -> np.ndarray:
    """Share of each true class (rows) that is predicted as each class (columns), shape (k, k)."""
    true, predicted = part["true_class"].to_numpy(), part["predicted_class"].to_numpy()
    k = int(max(true.max(), predicted.max())) + 1
    counts = np.zeros((k, k))
    np.add.at(counts, (true, predicted), 1)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def coverage(runs: pd.DataFrame, bands: int = 5) -> pd.DataFrame:
    """Coverage of the 80 % interval over all prompts, and by fifths of predicted and true length.

    Columns by, band (1 is shortest, 0 all), n, from and to (tokens), value, low, high: 95 %
    bootstrap intervals over prompts.
    """
    rows = [_covered(runs, "all prompts", 0, runs["output_tokens"])]
    for by, column in (("predicted length", "predicted_tokens"), ("true length", "output_tokens")):
        edges = np.quantile(runs[column], np.arange(1, bands) / bands)
        band = np.searchsorted(edges, runs[column], side="right")
        for number in np.unique(band):
            part = runs[band == number]
            rows.append(_covered(part, by, int(number) + 1, part[column]))
    return pd.DataFrame(rows)


def _covered(rows: pd.DataFrame, by: str, band: int, lengths: pd.Series) -> dict[str, object]:
    inside = rows["output_tokens"].between(rows[LOW], rows[HIGH]).to_numpy()
    estimate = resampled(lambda at: {"c": inside[at].mean()}, len(rows), resamples=500)
    ends = {"from (tokens)": float(lengths.min()), "to (tokens)": float(lengths.max())}
    interval = estimate.loc[0, ["value", "low", "high"]].to_dict()
    return {"by": by, "band": band, "n": len(rows)} | ends | interval
