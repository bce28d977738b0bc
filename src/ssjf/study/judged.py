"""How good the predictions of raw runs are, with intervals over prompts.

``runs`` are rows of a training experiment (see proxy_runs): output_tokens, predicted_tokens,
quantiles ``q0.05``…, classes, and the conversation that a prompt opens or belongs to.
"""

import numpy as np
import pandas as pd

from ssjf.request import IntArray
from ssjf.study.quality import class_quality, rank_quality
from ssjf.study.quality_intervals import interval_coverage, resampled

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


def of(frame: pd.DataFrame) -> dict[str, float]:
    """All measures of one series' predictions; the ranks of the mean where there are draws."""
    truth = frame["output_tokens"].to_numpy(np.float64)
    said = frame["predicted_tokens"].to_numpy(np.float64)
    ranks, missed = rank_quality(truth, said), said - truth
    mean = {"spearman_of_mean": rank_quality(_mean_of_draws(frame), said)["spearman"]}
    return {
        **ranks,
        **(mean if "draw_1" in frame else {}),
        "mae": float(abs(missed).mean()),
        "rmse": float(np.sqrt((missed**2).mean())),
        "r2": float(1 - (missed**2).mean() / truth.var()),
        **class_quality(frame["true_class"], frame["predicted_class"]),
        **_precision_and_recall(frame["true_class"], frame["predicted_class"]),
        **_coverage(frame),
    }


def _coverage(frame: pd.DataFrame) -> dict[str, float]:
    """Of the 80 % interval, where one was predicted."""
    if LOW not in frame or frame[LOW].isna().any():
        return {}
    return {"coverage_80": interval_coverage(frame["output_tokens"], frame[LOW], frame[HIGH])}


def judged(runs: pd.DataFrame, by: tuple[str, ...] = ("series",)) -> pd.DataFrame:
    """Columns ``by``, metric, value, low, high: 95 % bootstrap intervals over conversations."""
    parts = [_judged(part).assign(**dict(zip(by, key, strict=True)))
             for key, part in runs.groupby([*by], sort=False)]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _judged(part: pd.DataFrame) -> pd.DataFrame:
    part = part.reset_index(drop=True)

    def measure(rows: IntArray) -> dict[str, float]:
        return of(part.iloc[rows])

    return resampled(measure, len(part), part["conversation"].to_numpy(), resamples=RESAMPLES)


def confusion(part: pd.DataFrame) -> np.ndarray:
    """Share of each true class (rows) that is predicted as each class (columns), shape (k, k)."""
    true, said = part["true_class"].to_numpy(), part["predicted_class"].to_numpy()
    k = int(max(true.max(), said.max())) + 1
    counts = np.zeros((k, k))
    np.add.at(counts, (true, said), 1)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _mean_of_draws(frame: pd.DataFrame) -> np.ndarray:
    draws = [name for name in frame if str(name).startswith("draw_")]
    return frame[["output_tokens", *draws]].to_numpy(np.float64).mean(axis=1)


def _precision_and_recall(true: pd.Series, said: pd.Series) -> dict[str, float]:
    """Plain means over the classes that occur among the true ones; 0 where none is predicted."""
    ids = np.unique(true)
    hits = np.array([((true == i) & (said == i)).sum() for i in ids])
    predicted = np.array([(said == i).sum() for i in ids])
    occur = np.array([(true == i).sum() for i in ids])
    return {
        "precision": float((hits / np.maximum(predicted, 1)).mean()),
        "recall": float((hits / occur).mean()),
    }
