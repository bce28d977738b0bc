"""ALISE beside its baselines: latency over the request rate, and the highest rate under a bound.

Simulated: shapes and devices are arithmetic (``simulator.shapes``), the lengths those of data sets.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pandas as pd

from ssjf.analysis import metrics
from ssjf.errors import InputError
from ssjf.experiments.draws import draw, to_requests
from ssjf.experiments.open_loop import STREAMS, saturation_rate
from ssjf.experiments.specs import AliseRun
from ssjf.proxy import predict
from ssjf.request import FloatArray, Requests
from ssjf.scheduler import policy
from ssjf.simulator.profile import Profile
from ssjf.simulator.server import Memory, Server
from ssjf.simulator.shapes import deployed
from ssjf.simulator.simulate import SimulatedCompletions, simulate

PRECISION = 0.02  # of the highest rate
WIDEST = 2.0**10  # times the saturation rate of FCFS: all at once
FINISHED_IN_TIME = 0.95
KEPT = ("jct_mean", "jct_p99", "normalised_latency_mean", "normalised_latency_p99",
        "slowdown_mean", "slowdown_p99", "jain_slowdown", "completed_per_second",
        "mean_running")  # fmt: skip
COUNTED = ("preemptions", "swaps_out", "swaps_in", "swapped_out_tokens", "recomputed_tokens",
           "offloads_ahead", "uploads_ahead")  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """What serves: step times, slots and KV memory, the host tier."""

    profile: Profile
    server: Server
    memory: Memory


def machine(spec: AliseRun) -> Machine:
    """The machine of a run: its shape on its device, with what the system makes of memory."""
    profile, server, memory = deployed(spec.shape, spec.device)
    kv_share = spec.kv_share
    if kv_share != 1.0:
        server = replace(server, kv_tokens=int((server.kv_tokens or 0) * kv_share))
    link = spec.link_share
    memory = replace(
        memory,
        out_bytes_per_second=memory.out_bytes_per_second * link,
        in_bytes_per_second=memory.in_bytes_per_second * link,
    )
    return Machine(profile, server, replace(memory, **spec.memory))


@dataclass(frozen=True)
class Stream:
    """Requests of one seed with unit gaps, and what is predicted of them."""

    requests: Requests
    predicted: FloatArray | None

    def at(self, rate: float) -> Requests:
        """The same requests, gaps and order at so many a second."""
        return self.requests.arriving(self.requests.arrived_at / rate)


def stream(spec: AliseRun, seed: int) -> Stream:
    """Poisson arrivals at one a second of requests drawn from the pool."""
    workload = spec.workload
    pool = to_requests(_pool(workload.pool.label, tuple(workload.pool.of)))
    n = workload.requests
    rows = np.random.default_rng([seed, STREAMS["lengths"]]).integers(0, len(pool), n)
    gaps = np.random.default_rng([seed, STREAMS["arrivals"]]).exponential(1.0, n)
    requests = pool.take(rows).arriving(np.cumsum(gaps))
    rng = np.random.default_rng([seed, STREAMS["predictor"]])
    predicted = predict(spec.predictor, requests, rng) if spec.predictor else None
    return Stream(requests, predicted)


Rate = Callable[[Machine, Stream, float, float], float]
"""The rate of an x, given the machine, what arrives, and the rate at which FCFS saturates."""


@cache
def _pool(label: str, of: tuple[str, ...]) -> pd.DataFrame:
    return draw({"draw": "prompted", "of": list(of), "label": label})


def curve(spec: AliseRun) -> pd.DataFrame:
    """A row per rate and seed: ``x`` is the rate over the rate at which FCFS saturates."""
    return _rows(spec, spec.loads, lambda here, arriving, load, top: load * top)


def limits(spec: AliseRun) -> pd.DataFrame:
    """A row per bound and seed: the highest rate whose mean normalised latency is within it.

    ``x`` is the bound in seconds a token. Bisection to ``PRECISION``; the other columns are of
    the run at that rate, which is ``WIDEST`` times FCFS's saturation rate where there is none.
    """

    def rate(here: Machine, arriving: Stream, bound: float, top: float) -> float:
        return min(highest_rate(spec, here, arriving, bound, top), top * WIDEST)

    return _rows(spec, spec.bounds, rate)


def _rows(spec: AliseRun, of: list[float], rate: Rate) -> pd.DataFrame:
    """Runs at the rate of every x, for every seed."""
    here = machine(spec)
    rows = []
    for seed in spec.workload.seeds:
        arriving = stream(spec, seed)
        top = saturation_rate(arriving.requests, here.profile, here.server)
        for x in of:
            at = rate(here, arriving, x, top)
            rows.append({"x": x, "seed": seed, "run": 0, "rate": at}
                        | _measured(spec, here, arriving, at))  # fmt: skip
    return _typed(rows)


def highest_rate(
    spec: AliseRun, here: Machine, arriving: Stream, bound: float, start: float
) -> float:
    """The highest rate (1/s) that keeps the mean normalised latency within ``bound`` s/token.

    With ``keeps_up`` in the specification the server must keep up as well (``_keeps_up``): in an
    overload that ends, an order that puts the long ones last has a low mean for as long as it
    lasts. Infinite where even all at once is within the bound. InputError if not even a server
    that is nearly always idle keeps it.
    """

    def within(rate: float) -> bool:
        done = _served(spec, here, arriving, rate)
        return _latency(done) <= bound and (not spec.keeps_up or _keeps_up(done))

    low = start
    while not within(low):
        low /= 2
        if low < start / WIDEST:
            raise InputError(f"a request alone takes longer than {bound:g} s a token on "
                             f"{spec.shape}, {spec.device}; give a wider bound")  # fmt: skip
    high = 2 * low
    while within(high):
        low, high = high, 2 * high
        if high > start * WIDEST:
            return float(np.inf)
    while high > low * (1 + PRECISION):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if within(middle) else (low, middle)
    return low


def _keeps_up(done: SimulatedCompletions) -> bool:
    """Are ``FINISHED_IN_TIME`` of the requests finished when the last one arrives?"""
    last = done.requests.arrived_at[-1]
    return float((done.finished_at <= last).mean()) >= FINISHED_IN_TIME


def _served(spec: AliseRun, here: Machine, arriving: Stream, rate: float) -> SimulatedCompletions:
    return simulate(
        arriving.at(rate), policy(spec.policy), here.profile, here.server, arriving.predicted,
        spec.predictor_seconds, here.memory,
    )  # fmt: skip


def _latency(done: SimulatedCompletions) -> float:
    jct = done.finished_at - done.requests.arrived_at
    return float(np.mean(jct / done.requests.output_tokens))


def _measured(spec: AliseRun, here: Machine, arriving: Stream, rate: float) -> dict[str, float]:
    done = _served(spec, here, arriving, rate)
    requests = done.requests
    alone = here.profile.alone_seconds(requests.prompt_tokens, requests.output_tokens)
    found = metrics.summarise(done, alone)
    n = len(done)
    counted = {f"{name}_per_request": done.counters[name] / n for name in COUNTED}
    return {name: found[name] for name in KEPT} | counted | {
        "swapped_share": float((done.swapped_seconds > 0).mean()),
        "swapped_seconds_mean": float(done.swapped_seconds.mean()),
    }  # fmt: skip


def _typed(rows: list[dict[str, float]]) -> pd.DataFrame:
    found = pd.DataFrame(rows)
    floats = found.columns.difference(["seed", "run"])
    return found.astype({name: np.float32 for name in floats} | {"seed": np.int32, "run": np.int32})
