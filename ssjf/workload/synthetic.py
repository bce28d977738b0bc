"""Synthetic workloads: arrival times and lengths, drawn with a given generator.

Times are sorted seconds, float64 (n,); lengths are tokens, int64 (n,), at least 1. Every function
raises InputError for an option out of range.
"""

from importlib import resources
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import Generator

from ssjf.config import count, positive
from ssjf.errors import InputError, unknown
from ssjf.request import FloatArray, IntArray, Requests

if TYPE_CHECKING:  # pandas takes long to import
    from pandas import DataFrame

MAX_TOKENS = 2**31 - 1  # a heavy tail must not overflow; no real request comes near
PROCESSES = ("poisson", "gamma", "uniform", "deterministic", "burst")


def rate_for(rho: float, mean_seconds: float, slots: int = 1) -> float:
    """The arrival rate (1/s) that gives ``slots`` slots the load ``rho`` (which may exceed 1).

    rho = rate * mean service time / slots.
    """
    return positive("rho", rho) * count("slots", slots) / positive("mean_seconds", mean_seconds)


def arrivals(process: str, n: int, rate: float, rng: Generator, cv: float = 1.0) -> FloatArray:
    """Draw n arrival times in seconds, at ``rate`` requests per second on average.

    ``poisson`` and ``gamma`` have independent gaps, Gamma's with the coefficient of variation
    ``cv`` (1 is Poisson, above 1 is burstier); ``uniform`` is n points on [0, n/rate], a Poisson
    process given its count; ``deterministic`` has equal gaps from 0 on; ``burst`` is all at 0.
    """
    n, gap_seconds = count("n", n), 1 / positive("rate", rate)
    if process == "burst":
        return np.zeros(n)
    if process == "deterministic":
        return np.arange(n) / rate
    if process == "uniform":
        return np.sort(rng.uniform(0.0, n / rate, n))
    if process not in PROCESSES:
        raise unknown("arrival process", process, PROCESSES)
    squared_cv = positive("cv", cv) ** 2 if process == "gamma" else 1.0
    return np.cumsum(rng.gamma(1 / squared_cv, gap_seconds * squared_cv, n))


def lognormal(
    n: int, mean: float, sigma: float, rng: Generator, high: int = MAX_TOKENS
) -> IntArray:
    """Draw log-normal lengths; ``sigma`` is that of the natural logarithm.

    ``mean`` (tokens) applies before rounding and before the limit ``high``, which lowers it.
    """
    means = np.full(count("n", n), positive("mean", mean))
    location = np.log(means) - positive("sigma", sigma) ** 2 / 2
    with np.errstate(over="ignore"):  # a huge sigma ends at the limit, as it should
        lengths = np.exp(location + sigma * rng.standard_normal(n))
    return np.clip(np.rint(lengths), 1, count("high", high)).astype(np.int64)


def from_quartiles(
    n: int, low: float, q1: float, median: float, q3: float, high: float, rng: Generator
) -> IntArray:
    """Draw lengths (tokens) from a box plot: its two whiskers, its box and its median.

    Between these points of the quantile function the logarithm of the length is linear.
    """
    box = np.array([low, q1, median, q3, high], np.float64)
    if not np.all(np.isfinite(box)) or box[0] < 1 or np.any(np.diff(box) < 0):
        raise InputError(f"quartiles are {box.tolist()}; they must be 1 or more and sorted")
    shares = rng.random(count("n", n))
    lengths = np.exp(np.interp(shares, [0, 0.25, 0.5, 0.75, 1], np.log(box)))
    return np.clip(np.rint(lengths), 1, MAX_TOKENS).astype(np.int64)


def llm_boxes() -> "DataFrame":
    """Output lengths of 25 LLMs as box-plot statistics, in tokens.

    Read from the box-plot figure in the SSJF authors' public repository
    (``characterization/token_length_boxplots_all.pdf``, LMSYS-Chat-1M): quartiles, and whiskers at
    1.5 times the interquartile range; values beyond the whiskers are not known. Columns: low, q1,
    median, q3, high, indexed by LLM.
    """
    import pandas as pd

    with (resources.files("ssjf.workload") / "data/llm_token_quartiles.csv").open() as file:
        return pd.read_csv(file, index_col="llm")[["low", "q1", "median", "q3", "high"]]


def requests(n: int, rng: Generator) -> Requests:
    """Draw n requests of log-normal lengths, all arriving at 0 (see ``Requests.arriving``).

    For trying things out without data: prompts of 150 tokens on average (σ 1) and answers of
    200 (σ 0.8) are round numbers of the size of a chat, not fitted to data.
    """
    prompt_tokens = lognormal(n, 150, 1.0, rng)
    return Requests(np.zeros(n), prompt_tokens, lognormal(n, 200, 0.8, rng))
