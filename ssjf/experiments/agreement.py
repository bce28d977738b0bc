"""Predictions of stored draws against the truth: an experiment's own, and the authors'."""

import numpy as np
import pandas as pd

from ssjf.experiments.draws import draw, to_requests
from ssjf.experiments.grid import experiment
from ssjf.proxy import predict
from ssjf.request import PAPER_THRESHOLDS, Requests


def pool_of(name: str) -> Requests:
    """The requests (with their predictions) that an experiment draws from."""
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
