"""How good the predictions of raw runs are, with intervals over prompts.

``runs`` are rows of a training experiment (see proxy_runs): output_tokens, predicted_tokens,
quantiles ``q0.05``…, classes, and the conversation that a prompt opens or belongs to.
"""

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from ssjf.analysis.intervals import resampled
from ssjf.analysis.quality import class_quality, error_quality, interval_coverage
from ssjf.analysis.ranks import rank
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
Measure = Callable[[Arrays], float]


def _rank(name: str, truth: str = "truth") -> Measure:
    return lambda a: rank(name, a[truth], a["said"])


def _error(name: str) -> Measure:
    return lambda a: error_quality(a["truth"], a["said"])[name]


def _class(name: str) -> Measure:
    return lambda a: class_quality(a["true_class"], a["predicted_class"])[name]


MEASURES: dict[str, Measure] = {
    "kendall_tau_b": _rank("kendall_tau_b"),
    "spearman": _rank("spearman"),
    "spearman_of_mean": _rank("spearman", "mean"),
    "pairs_2x": _rank("pairs_2x"),
    "mae": _error("mae"),
    "rmse": _error("rmse"),
    "r2": _error("r2"),
    "accuracy": _class("accuracy"),
    "macro_f1": _class("macro_f1"),
    "precision": lambda a: precision_and_recall(a["true_class"], a["predicted_class"])[0],
    "recall": lambda a: precision_and_recall(a["true_class"], a["predicted_class"])[1],
    "within_one_class": _class("within_one_class"),
    "coverage_80": lambda a: interval_coverage(a["truth"], a["low"], a["high"]),
}


def judged(
    runs: pd.DataFrame, by: tuple[str, ...] = ("series",), metrics: Iterable[str] = MEASURES
) -> pd.DataFrame:
    """Columns ``by``, metric, value, low, high: 95 % bootstrap intervals over conversations.

    A measure is left out where the rows do not tell it: the mean of draws, the interval.
    """
    parts = [_judged(part, metrics).assign(**dict(zip(by, key, strict=True)))
             for key, part in runs.groupby([*by], sort=False)]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _judged(part: pd.DataFrame, metrics: Iterable[str]) -> pd.DataFrame:
    arrays = _arrays(part)
    lacking = {"spearman_of_mean": "mean", "coverage_80": "low"}
    asked = [name for name in metrics if lacking.get(name, "truth") in arrays]

    def measure(rows: IntArray) -> dict[str, float]:
        taken = {name: array[rows] for name, array in arrays.items()}
        return {name: MEASURES[name](taken) for name in asked}

    return resampled(measure, len(part), part["conversation"].to_numpy(), resamples=RESAMPLES)


def _arrays(part: pd.DataFrame) -> Arrays:
    """The columns that measures read; ``mean`` of all draws, ``low`` and ``high`` if told."""
    draws = [name for name in part if str(name).startswith("draw_")]
    found = {
        "truth": part["output_tokens"],
        "said": part["predicted_tokens"],
        "true_class": part["true_class"],
        "predicted_class": part["predicted_class"],
    }
    if draws and part[draws].notna().all(axis=None):
        found["mean"] = part[["output_tokens", *draws]].mean(axis=1)
    if LOW in part and part[LOW].notna().all():
        found |= {"low": part[LOW], "high": part[HIGH]}
    return {name: column.to_numpy(np.float64) for name, column in found.items()}


def confusion(part: pd.DataFrame) -> np.ndarray:
    """Share of each true class (rows) that is predicted as each class (columns), shape (k, k)."""
    true, said = part["true_class"].to_numpy(), part["predicted_class"].to_numpy()
    k = int(max(true.max(), said.max())) + 1
    counts = np.zeros((k, k))
    np.add.at(counts, (true, said), 1)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def precision_and_recall(true: np.ndarray, said: np.ndarray) -> tuple[float, float]:
    """Plain means over the classes that occur among the true ones; 0 where none is predicted."""
    ids = np.unique(true)
    hits = np.array([((true == i) & (said == i)).sum() for i in ids])
    predicted = np.array([(said == i).sum() for i in ids])
    occur = np.array([(true == i).sum() for i in ids])
    return float((hits / np.maximum(predicted, 1)).mean()), float((hits / occur).mean())


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
    value, low, high = estimate.loc[0, ["value", "low", "high"]]
    interval = {"value": value, "low": low, "high": high}
    return {"by": by, "band": band, "n": len(rows)} | ends | interval
