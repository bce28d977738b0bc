"""Queueing formulas to hold the simulator against. Times in seconds, rates in requests/s.

All are steady-state means under Poisson arrivals; each function raises InputError for a
number out of range and for a load of 1 or more, which has no steady state.
"""

import math

from numpy.typing import ArrayLike

from ssjf.analysis.theory import priority_waits
from ssjf.config import count, positive
from ssjf.errors import InputError


def utilisation(rate: float, mean_seconds: float, slots: int = 1) -> float:
    """The load per slot, rho = rate * mean service time / slots."""
    rate, mean_seconds = positive("rate", rate), positive("mean_seconds", mean_seconds)
    return rate * mean_seconds / count("slots", slots)


def pollaczek_khinchine(rate: float, mean: float, second_moment: float) -> float:
    """Mean FCFS waiting time of M/G/1: rate E[S^2] / (2 (1 - rho)).

    ``mean`` (s) and ``second_moment`` (s^2) are those of the service time S. Source:
    Pollaczek 1930, Khinchine 1932; Kleinrock, Queueing Systems I, eq. 5.113.
    """
    rho = _steady(rate, mean, 1)
    return rate * positive("second_moment", second_moment) / (2 * (1 - rho))


def sjf_waiting(rate: float, durations: ArrayLike) -> float:
    """Mean waiting time of M/G/1 under non-preemptive SJF with exactly known durations.

    ``priority_waits`` with a class per distinct duration, averaged over the jobs. Source:
    Phipps 1956 (Operations Research 4:76).
    """
    return float(priority_waits(rate, durations, durations).mean())


def erlang_c(rate: float, mean_seconds: float, slots: int) -> float:
    """The probability that an arrival at M/M/c must wait (Erlang 1917).

    From the recursion of Erlang's B formula, which overflows for no number of slots.
    """
    rho = _steady(rate, mean_seconds, slots)
    offered, blocked = rho * slots, 1.0
    for k in range(1, slots + 1):
        blocked = offered * blocked / (k + offered * blocked)
    return blocked / (1 - rho * (1 - blocked))


def mmc_waiting(rate: float, mean_seconds: float, slots: int) -> float:
    """Mean waiting time of M/M/c: C E[S] / (c (1 - rho)), C the probability to wait."""
    rho = _steady(rate, mean_seconds, slots)
    return erlang_c(rate, mean_seconds, slots) * mean_seconds / (slots * (1 - rho))


def _steady(rate: float, mean_seconds: float, slots: int) -> float:
    rho = utilisation(rate, mean_seconds, slots)
    if rho >= 1:
        limit = _rounded_down(slots / mean_seconds)
        raise InputError(
            f"rho is {rho:.2f} at {rate:g} requests/s; a steady state needs a rate below {limit:g}"
        )
    return rho


def _rounded_down(value: float, digits: int = 3) -> float:
    """To significant digits, never above the value: a limit that is named must hold."""
    scale = 10.0 ** (digits - 1 - math.floor(math.log10(value)))
    return math.floor(value * scale) / scale
