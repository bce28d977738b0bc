"""Synthetic lengths in tokens: whole numbers of at least 1, as int64 of shape (n,).

Every function raises InputError for a parameter out of range. Means are those of the
distribution before rounding and before the limits ``low`` and ``high`` (tokens, both allowed
values), so tight limits move them.
"""

from importlib import resources
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from ssjf.config import count, positive
from ssjf.errors import InputError
from ssjf.request import FloatArray, IntArray, Requests

if TYPE_CHECKING:  # pandas takes long to import
    from pandas import DataFrame

MAX_TOKENS = 2**31 - 1  # a heavy tail must not overflow; no real request comes near


def lognormal(
    n: int, mean: float, sigma: float, rng: Generator, low: int = 1, high: int | None = None
) -> IntArray:
    """Log-normal lengths; ``mean`` in tokens, ``sigma`` of the length's natural logarithm."""
    positive("mean", mean)
    return _lognormal(np.full(count("n", n), mean), sigma, rng, low, high)


def pareto(
    n: int, mean: float, alpha: float, rng: Generator, low: int = 1, high: int | None = None
) -> IntArray:
    """Heavy-tailed (Lomax, Pareto II) lengths: P(X > x) = (1 + x / s)^-alpha.

    ``alpha`` must be above 1, or there is no mean; at 2 or below the variance is infinite.
    """
    if positive("alpha", alpha) <= 1:
        raise InputError(f"alpha is {alpha!r}; it must be above 1 for the mean to exist")
    scale = positive("mean", mean) * (alpha - 1)
    return _tokens(scale * rng.pareto(alpha, count("n", n)), low, high)


def classes(
    n: int,
    shares: ArrayLike,
    means: ArrayLike,
    sigma: float,
    rng: Generator,
    low: int = 1,
    high: int | None = None,
) -> tuple[IntArray, IntArray]:
    """A mixture of log-normals, and which one each request is from: (tokens, class_ids).

    ``shares`` (k,) sum to 1, ``means`` (k,) are in tokens; class ids are 0 … k-1.
    """
    shares, means = np.asarray(shares, np.float64), np.asarray(means, np.float64)
    if shares.ndim != 1 or shares.shape != means.shape:
        raise InputError(f"shares and means must be as many, not {shares.size} and {means.size}")
    if not np.all(shares >= 0) or not np.isclose(shares.sum(), 1):
        raise InputError(f"shares are {shares.tolist()}; they must be 0 or more and sum to 1")
    for mean in means.tolist():
        positive("each of means", mean)
    class_ids = rng.choice(len(shares), count("n", n), p=shares / shares.sum())
    return _lognormal(means[class_ids], sigma, rng, low, high), class_ids


def from_quantiles(n: int, probabilities: ArrayLike, values: ArrayLike, rng: Generator) -> IntArray:
    """Lengths whose quantile function goes through (probabilities, values).

    Between the points the logarithm of the length is linear. ``probabilities`` (k,) increase
    from 0 to 1; ``values`` (k,) are tokens, at least 1 and not decreasing.
    """
    p, tokens = np.asarray(probabilities, np.float64), np.asarray(values, np.float64)
    if p.shape != tokens.shape or p.ndim != 1:
        raise InputError(f"{p.size} probabilities were given for {tokens.size} values")
    if len(p) < 2 or p[0] != 0 or p[-1] != 1 or not np.all(np.diff(p) > 0):
        raise InputError(f"probabilities are {p.tolist()}; they must increase from 0 to 1")
    if not np.all(np.isfinite(tokens)) or tokens[0] < 1 or np.any(np.diff(tokens) < 0):
        raise InputError(f"quantiles are {tokens.tolist()}; they must be 1 or more and sorted")
    return _tokens(np.exp(np.interp(rng.random(count("n", n)), p, np.log(tokens))), 1, None)


def from_quartiles(
    n: int, low: float, q1: float, median: float, q3: float, high: float, rng: Generator
) -> IntArray:
    """Lengths (tokens) read off a box plot: its two whiskers, its box and its median."""
    return from_quantiles(n, (0, 0.25, 0.5, 0.75, 1), (low, q1, median, q3, high), rng)


def llm_boxes() -> "DataFrame":
    """Output lengths of 25 LLMs as box-plot statistics, in tokens.

    Read from the box-plot figure in the SSJF authors' public repository
    (``characterization/token_length_boxplots_all.pdf``, LMSYS-Chat-1M): quartiles, and whiskers at
    1.5 times the interquartile range; what lies beyond a whisker is not known.

    Returns
    -------
    Shape (25, 5): low, q1, median, q3, high, indexed by LLM.
    """
    import pandas as pd

    with (resources.files("ssjf.workload") / "data/llm_token_quartiles.csv").open() as file:
        return pd.read_csv(file, index_col="llm")[["low", "q1", "median", "q3", "high"]]


def synthetic(
    n: int,
    rng: Generator,
    prompt_mean: float = 150,
    prompt_sigma: float = 1.0,
    output_mean: float = 200,
    output_sigma: float = 0.8,
) -> Requests:
    """n requests of log-normal lengths (tokens), all arriving at 0: see Requests.arriving.

    A convenience for trying things out with no data at hand: the defaults are round numbers
    of a chat's size and are fitted to nothing.
    """
    prompt_tokens = lognormal(n, prompt_mean, prompt_sigma, rng)
    return Requests(np.zeros(n), prompt_tokens, lognormal(n, output_mean, output_sigma, rng))


def _lognormal(
    means: FloatArray, sigma: float, rng: Generator, low: int, high: int | None
) -> IntArray:
    location = np.log(means) - positive("sigma", sigma) ** 2 / 2
    with np.errstate(over="ignore"):  # a huge sigma ends at the limit, as it should
        return _tokens(np.exp(location + sigma * rng.standard_normal(len(means))), low, high)


def _tokens(lengths: FloatArray, low: int, high: int | None) -> IntArray:
    high = MAX_TOKENS if high is None else count("high", high)
    if count("low", low) > high:
        raise InputError(f"low is {low} and high is {high}; low must not be above high")
    return np.clip(np.rint(lengths), low, high).astype(np.int64)
