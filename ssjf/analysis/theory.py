"""Queueing theory of one slot under Poisson arrivals (M/G/1), to compare with simulations.

Times are seconds, rates requests per second; lengths are an empirical distribution.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from ssjf.errors import InputError
from ssjf.request import FloatArray


def priority_waits(rate: float, durations: ArrayLike, keys: ArrayLike) -> FloatArray:
    """Mean M/G/1 waiting time of each of an empirical distribution's jobs, shape (n,).

    Jobs are drawn with equal chance from ``durations`` (s, shape (n,)) and served without
    preemption by lowest key, shape (n,), first come first served within a key. For a job of
    key k

        W_k = W_0 / ((1 - rho_{<k}) (1 - rho_{<=k})),  W_0 = rate E[S^2] / 2

    with rho_{<k} the load of the jobs of lower keys. One key for all is FCFS (Pollaczek 1930,
    Khinchine 1932), a predicted length is SSJF, the duration itself SJF (Phipps 1956). Source:
    Cobham 1954 (Operations Research 2:70).
    """
    seconds, keys = durations_of(durations, rate), np.asarray(keys)
    if keys.shape != seconds.shape:
        raise InputError(f"{keys.size} keys were given for {seconds.size} durations")
    _, class_of = np.unique(keys, return_inverse=True)
    load = rate * np.bincount(class_of, seconds) / len(seconds)
    up_to = np.cumsum(load)
    residual = rate * np.mean(seconds**2) / 2
    return (residual / ((1 - (up_to - load)) * (1 - up_to)))[class_of]


def fcfs_tail(rate: float, durations: ArrayLike) -> tuple[float, float]:
    """(γ, C) of FCFS's tail: P(JCT > t) falls off as C · exp(−γ t), t in seconds.

    γ is the root of rate (E[exp(γ S)] − 1) = γ (Cramér and Lundberg; Asmussen, *Applied
    Probability and Queues*, XIII.5), C = E[exp(γ S)] (1 − ρ) / (rate E[S exp(γ S)] − 1).
    γ-boost takes its 1/γ from it.
    """
    seconds = durations_of(durations, rate)

    def excess(gamma: float) -> float:
        return rate * np.mean(np.expm1(gamma * seconds)) / gamma - 1

    least = most = 1e-6 / seconds.max()
    while excess(most) < 0:
        most *= 2
    gamma = float(brentq(excess, least, most, xtol=1e-15, rtol=1e-12))
    grown = np.exp(gamma * seconds)
    waits = (1 - rate * seconds.mean()) / (rate * np.mean(seconds * grown) - 1)
    return gamma, float(grown.mean() * waits)


def durations_of(durations: ArrayLike, rate: float) -> FloatArray:
    """Check durations (s); their load at ``rate`` requests per second must be below 1."""
    seconds = np.asarray(durations, np.float64)
    if seconds.ndim != 1 or not len(seconds) or not (np.isfinite(seconds) & (seconds > 0)).all():
        raise InputError("durations must be a list of finite times above 0")
    rho = rate * seconds.mean()
    if not 0 < rho < 1:
        raise InputError(f"rho is {rho:.2f} at {rate:g} requests/s; a steady state needs a rate "
                         f"below {1 / seconds.mean():.3g}")  # fmt: skip
    return seconds
