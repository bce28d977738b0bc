"""How sure are the metrics of quality? Bootstrap intervals over requests or conversations."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from ssjf.analysis.quality import METRICS, quality
from ssjf.analysis.ranks import RANK_METRICS, columns, one_each, rank_quality
from ssjf.config import count
from ssjf.errors import InputError, unknown
from ssjf.request import PAPER_THRESHOLDS, IntArray


def with_intervals(
    truth: ArrayLike,
    predicted: ArrayLike,
    names: Sequence[str] | None = None,
    groups: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int | Generator = 0,
    *,
    level: float = 0.95,
    thresholds: Sequence[float] = PAPER_THRESHOLDS,
) -> pd.DataFrame:
    """Metrics of ``quality`` with bootstrap intervals: columns metric, value, low, high.

    ``names`` are some of ``quality.METRICS``, by default all; rank metrics alone take scores of
    any unit. The intervals are those of ``resampled``: of the test requests, not of training.
    """
    wanted = METRICS if names is None else tuple(names)
    for name in wanted:
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
    true, found = columns(truth=truth, predicted=predicted)

    def measure(rows: IntArray) -> Mapping[str, float]:
        if set(wanted) <= set(RANK_METRICS):
            return rank_quality(true[rows], found[rows])
        return quality(true[rows], found[rows], thresholds=thresholds)

    options: dict[str, Any] = {"resamples": resamples, "seed": seed, "level": level}
    table = resampled(measure, len(true), groups, **options).set_index("metric")
    return table.loc[list(wanted)].reset_index()


def resampled(
    measure: Callable[[IntArray], Mapping[str, float]],
    n: int,
    groups: ArrayLike | None = None,
    *,
    resamples: int = 1000,
    seed: int | Generator = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """Percentile bootstrap intervals of ``measure(rows)``: columns metric, value, low, high.

    A resample draws n of the n requests, or with ``groups``, ids of shape (n,), as many groups
    (conversations, of any size) as there are, each with all its requests. With one group, and
    where some resample has no finite value, low and high are NaN.
    """
    if not 0 < level < 1:
        raise InputError(f"level is {level}; it must be between 0 and 1")
    labels = np.arange(n) if groups is None else one_each("groups", groups, n)
    value = measure(np.arange(n))
    draws = _draws(labels, count("resamples", resamples), np.random.default_rng(seed))
    found = [list(measure(rows).values()) for rows in draws]
    limits = np.full((2, len(value)), np.nan)
    if found:  # a value that is not finite makes its column's limits NaN
        kept = np.where(np.isfinite(found).all(axis=0), found, np.nan)
        limits = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2], axis=0)
    names, values = list(value), list(value.values())
    return pd.DataFrame({"metric": names, "value": values, "low": limits[0], "high": limits[1]})


def _draws(labels: NDArray, resamples: int, rng: Generator) -> Iterator[IntArray]:
    """The rows of each resample; none if there is one group."""
    sizes = np.unique(labels, return_counts=True)[1]
    ordered = np.argsort(labels, kind="stable")
    starts = np.cumsum(sizes) - sizes
    for _ in range(resamples if len(sizes) > 1 else 0):
        drawn = rng.integers(0, len(sizes), len(sizes))
        taken = sizes[drawn]
        first = np.repeat(starts[drawn] - (np.cumsum(taken) - taken), taken)
        yield ordered[first + np.arange(len(first))]
