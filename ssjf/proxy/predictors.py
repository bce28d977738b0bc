"""Predictors that need no text: the truth, the truth with an error, or a column of the data.

They bound the value of a learned predictor. Every predictor is a function
``(requests, value, rng) -> (n,)``, selected by ``name`` or ``name:value``.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ssjf.errors import InputError, unknown
from ssjf.request import PAPER_THRESHOLDS, FloatArray, Requests

TAU_TOLERANCE = 0.005
_TUNED_ON = 20_000  # requests: tau of more costs time and moves by less than the tolerance
_LARGEST_SIGMA = 100.0  # exp(100 * 5.5) is still a float64
_MOST_CLASSES = 64


def predict(spec: str, requests: Requests, rng: Generator) -> FloatArray:
    """Predicted output lengths of ``requests``, float64 of shape (n,), larger meaning longer.

    ``oracle`` is the true length in tokens. ``classes`` and ``classes:T1,T2,…`` give the class
    id 0 … k of the true length (below T1, from T1 to below T2, …): perfect binning, by default
    at the SSJF paper's thresholds. ``noise:SIGMA`` is the true length times exp(SIGMA z) with z
    standard normal; ``tau:TAU`` the same with SIGMA tuned so that Kendall's tau-b with the
    truth is TAU. ``error:TOKENS`` is the true length plus a Laplace error of that standard
    deviation. ``constant`` is the mean length for all; ``shuffled`` a permutation of the true
    lengths. ``column:NAME`` is a column of ``requests.predictions`` and
    ``class-mean:NAME`` a column of class ids decoded to the mean true length of its class.

    All but ``column`` use the true lengths: they are instruments, not predictors. Even
    ``class-mean`` uses the class means of this workload.

    Raises InputError for an unknown form or column, a value that is missing, out of place or
    out of range, and an empty workload.
    """
    name, colon, value = spec.partition(":")
    if name not in _PREDICTORS:
        raise unknown("predictor", spec, known_predictors())
    function, forms = _PREDICTORS[name]
    if colon and forms == (name,):
        raise InputError(f"predictor {spec!r}: {name} takes no value")
    if not value and (colon or name not in forms):
        raise InputError(f"predictor {spec!r} lacks its value; its form is {' or '.join(forms)}")
    if not len(requests):
        raise InputError("the workload has no requests")
    return function(requests, value, rng).astype(np.float64)


def known_predictors() -> tuple[str, ...]:
    """The forms that ``predict`` takes."""
    return tuple(form for _, forms in _PREDICTORS.values() for form in forms)


def _mean(requests: Requests, value: str, rng: Generator) -> FloatArray:
    return np.full(len(requests), requests.output_tokens.mean())


def _classes(requests: Requests, value: str, rng: Generator) -> NDArray:
    spec = f"classes:{value}"
    thresholds = [_number(spec, part) for part in value.split(",")] if value else PAPER_THRESHOLDS
    if np.any(np.diff(thresholds) <= 0):
        raise InputError(f"predictor {spec!r}: the thresholds must increase")
    # A length at a threshold belongs to the class above it, as in the authors' training labels.
    return np.searchsorted(thresholds, requests.output_tokens, side="right")


def _noise(requests: Requests, value: str, rng: Generator) -> FloatArray:
    sigma = _number(f"noise:{value}", value, high=_LARGEST_SIGMA)
    return requests.output_tokens * np.exp(sigma * rng.standard_normal(len(requests)))


def _error(requests: Requests, value: str, rng: Generator) -> FloatArray:
    tokens = _number(f"error:{value}", value)
    return requests.output_tokens + rng.laplace(scale=tokens / math.sqrt(2), size=len(requests))


def _tau(requests: Requests, value: str, rng: Generator) -> NDArray:
    target = _number(f"tau:{value}", value, high=1.0)
    if target == 1:
        return requests.output_tokens
    noise = rng.standard_normal(len(requests))
    rows = rng.permutation(len(requests))[:_TUNED_ON]
    truth = np.log(np.maximum(requests.output_tokens, 1))
    # Noise that correlates with the truth by chance is mirrored, so that tau can reach 0.
    if _kendall(truth[rows], noise[rows]) > 0:
        noise = -noise
    sigma = _sigma_for(target, truth[rows], noise[rows])
    return requests.output_tokens * np.exp(sigma * noise)


def _sigma_for(target: float, truth: FloatArray, noise: FloatArray) -> float:
    """The sigma at which tau-b(truth + sigma noise, truth) is ``target``: bisection.

    Tau falls as one draw of noise is scaled up, but for steps of single pairs; logarithms
    have the order of the lengths.
    """
    low, high, sigma, reached = 0.0, _LARGEST_SIGMA, 0.0, math.nan
    for _ in range(50):
        sigma = (low + high) / 2
        reached = _kendall(truth + sigma * noise, truth)
        if abs(reached - target) < TAU_TOLERANCE / 10:
            break
        low, high = (sigma, high) if reached > target else (low, sigma)
    if not abs(reached - target) <= TAU_TOLERANCE:
        raise InputError(
            f"tau:{target:g} cannot be reached on these {len(truth)} requests; "
            f"the nearest is {reached:.3f} (use oracle for 1, shuffled for 0)"
        )
    return sigma


def _kendall(a: FloatArray, b: FloatArray) -> float:
    from scipy.stats import kendalltau  # takes long to import: only where it is asked

    method = "asymptotic" if len(a) > 2 else "auto"  # of two SciPy finds no variance
    return float(kendalltau(a, b, method=method).statistic)


def _column(requests: Requests, value: str, rng: Generator) -> FloatArray:
    if value not in requests.predictions:
        raise unknown("prediction column", value, requests.predictions or ["(none)"])
    column = np.array(requests.predictions[value], np.float64)
    if not np.isfinite(column).all():
        raise InputError(f"prediction column {value!r} holds values that are not finite numbers")
    return column


def _class_mean(requests: Requests, value: str, rng: Generator) -> FloatArray:
    ids, class_of = np.unique(_column(requests, value, rng), return_inverse=True)
    if len(ids) > _MOST_CLASSES or np.any(ids % 1):
        raise InputError(
            f"prediction column {value!r} is not of class ids: it must hold at most "
            f"{_MOST_CLASSES} different whole numbers (it holds {len(ids)} different values)"
        )
    return (np.bincount(class_of, requests.output_tokens) / np.bincount(class_of))[class_of]


def _number(spec: str, text: str, high: float = math.inf) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (0 <= number <= high and math.isfinite(number)):
        limits = "of at least 0" if high == math.inf else f"from 0 to {high:g}"
        raise InputError(f"predictor {spec!r}: {text!r} is not a number {limits}")
    return number


_PREDICTORS: dict[str, tuple[Callable[[Requests, str, Generator], NDArray], tuple[str, ...]]] = {
    "oracle": (lambda requests, *_: requests.output_tokens, ("oracle",)),
    "classes": (_classes, ("classes", "classes:T1,T2,…")),
    "noise": (_noise, ("noise:SIGMA",)),
    "error": (_error, ("error:TOKENS",)),
    "tau": (_tau, ("tau:TAU",)),
    "constant": (_mean, ("constant",)),
    "shuffled": (lambda requests, _, rng: rng.permutation(requests.output_tokens), ("shuffled",)),
    "column": (_column, ("column:NAME",)),
    "class-mean": (_class_mean, ("class-mean:NAME",)),
}
