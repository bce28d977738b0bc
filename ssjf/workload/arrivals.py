"""Arrival processes: each returns n sorted times in seconds, as float64 of shape (n,).

Every function raises InputError for an option out of range.
"""

import inspect
from collections.abc import Callable, Mapping
from numbers import Integral

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from ssjf.config import count, positive
from ssjf.errors import InputError, unknown
from ssjf.request import FloatArray


def rate_for(rho: float, mean_seconds: float, slots: int = 1) -> float:
    """The arrival rate (1/s) at which ``slots`` slots have load ``rho`` (which may be 1 or more).

    rho = rate * mean service time / slots.
    """
    return positive("rho", rho) * count("slots", slots) / positive("mean_seconds", mean_seconds)


def poisson(n: int, rate: float, rng: Generator) -> FloatArray:
    """Independent exponential gaps with mean 1/rate; ``rate`` in requests per second."""
    return gamma(n, rate, 1.0, rng)


def gamma(n: int, rate: float, cv: float, rng: Generator) -> FloatArray:
    """Independent Gamma gaps with mean 1/rate seconds and coefficient of variation ``cv``.

    cv = 1 is Poisson, above 1 is burstier, below 1 is more regular.
    """
    gap_seconds, squared_cv = 1 / positive("rate", rate), positive("cv", cv) ** 2
    return np.cumsum(rng.gamma(1 / squared_cv, gap_seconds * squared_cv, count("n", n)))


def uniform(n: int, rate: float, rng: Generator) -> FloatArray:
    """n independent points, uniform on [0, n/rate] seconds: a Poisson process given its count."""
    n = count("n", n)
    return np.sort(rng.uniform(0.0, n / positive("rate", rate), n))


def deterministic(n: int, rate: float, rng: Generator | None = None) -> FloatArray:
    """One request every 1/rate seconds, the first at 0; ``rng`` is not used."""
    return np.arange(count("n", n)) / positive("rate", rate)


def burst(n: int) -> FloatArray:
    """Everything at time 0."""
    return np.zeros(count("n", n))


def replay(
    trace_arrived_at: ArrayLike,
    n: int,
    scale: float = 1.0,
    start: int | str = 0,
    rng: Generator | None = None,
) -> FloatArray:
    """A recorded trace (sorted seconds) from 0 on, at ``scale`` times the recorded rate.

    ``start`` is the first row used (from 0), or ``"random"`` for one drawn with ``rng``. When
    the rows run out the trace begins again, one mean gap after its last arrival, so that
    looping keeps the recorded rate.
    """
    trace = _recorded(trace_arrived_at)
    n, scale = count("n", n), positive("scale", scale)
    first = _first_row(start, len(trace), rng)
    loops, rows = np.divmod(first + np.arange(n), len(trace))
    if loops[-1] == 0:
        return (trace[rows] - trace[first]) / scale
    return (trace[rows] - trace[first] + loops * _period_seconds(trace)) / scale


def _recorded(trace_arrived_at: ArrayLike) -> FloatArray:
    trace = np.asarray(trace_arrived_at, np.float64)
    if trace.ndim != 1 or not len(trace):
        raise InputError("trace_arrived_at must be a list of at least one time")
    if not np.all(np.isfinite(trace)) or np.any(np.diff(trace) < 0):
        raise InputError("trace_arrived_at must hold finite times in sorted order")
    return trace


def _first_row(start: int | str, rows: int, rng: Generator | None) -> int:
    if start == "random" and rng is not None:
        return int(rng.integers(rows))
    if isinstance(start, Integral) and 0 <= start < rows:
        return int(start)
    raise InputError(
        f"start is {start!r}; it must be a row from 0 to {rows - 1}, or 'random' with a generator"
    )


def _period_seconds(trace: FloatArray) -> float:
    span = trace[-1] - trace[0]
    if span == 0:
        raise InputError("a trace whose arrivals are all at one time cannot be looped; lower n")
    return span + span / (len(trace) - 1)


PROCESSES: dict[str, Callable[..., FloatArray]] = {
    process.__name__: process for process in (poisson, gamma, uniform, deterministic, burst, replay)
}


def arrivals(spec: Mapping[str, object], n: int, rng: Generator) -> FloatArray:
    """n sorted arrival times in seconds from e.g. ``{"process": "gamma", "rate": 2, "cv": 3}``.

    The other keys are the options of the process of that name. Raises InputError for an
    unknown process, an unknown or missing option, and a value out of range.
    """
    options = {option: value for option, value in spec.items() if option != "process"}
    name = spec.get("process")
    if name not in PROCESSES:
        raise unknown("arrival process", name, PROCESSES)
    _check_options(name, options)
    if "rng" in inspect.signature(PROCESSES[name]).parameters:
        options["rng"] = rng
    return PROCESSES[name](n=n, **options)


def _check_options(name: str, options: Mapping[str, object]) -> None:
    parameters = inspect.signature(PROCESSES[name]).parameters
    known = {option: p for option, p in parameters.items() if option not in ("n", "rng")}
    for option in options:
        if option not in known:
            raise unknown(f"option of arrival process {name!r}:", option, known or ["(none)"])
    for option, parameter in known.items():
        if parameter.default is parameter.empty and option not in options:
            raise InputError(f"arrival process {name!r} needs the option {option!r}")
