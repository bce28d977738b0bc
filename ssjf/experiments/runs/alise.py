"""ALISE and its baselines: latency over the request rate, and the highest rate under a bound.

All simulated: models and devices by arithmetic (``simulator.shapes``), lengths from data sets.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ssjf.analysis import metrics
from ssjf.errors import InputError
from ssjf.experiments.draws import draw, to_requests
from ssjf.experiments.runs.steady import STREAMS, predicted_for, saturation_rate, typed
from ssjf.experiments.specs import AliseRun
from ssjf.request import FloatArray, Requests
from ssjf.scheduler import policy
from ssjf.simulator.profile import Profile
from ssjf.simulator.server import Memory, Server
from ssjf.simulator.shapes import deployed
from ssjf.simulator.simulate import SimulatedCompletions, simulate

PRECISION = 0.02  # of the highest rate
WIDEST = 2.0**10  # times FCFS's saturation rate: practically all at once
FINISHED_IN_TIME = 0.95  # share of requests finished by a server that keeps up
KEPT = ("jct_mean", "jct_p99", "normalised_latency_mean", "normalised_latency_p99",
        "slowdown_mean", "slowdown_p99", "jain_slowdown", "completed_per_second",
        "mean_running")  # fmt: skip
COUNTED = ("preemptions", "swaps_out", "swaps_in", "swapped_out_tokens", "recomputed_tokens",
           "offloads_ahead", "uploads_ahead")  # fmt: skip


@dataclass(frozen=True)
class Load:
    """Requests of one seed at one per second, their predictions, and the machine."""

    spec: AliseRun
    profile: Profile
    server: Server
    memory: Memory
    requests: Requests
    predicted: FloatArray | None = None

    def served(self, rate: float) -> SimulatedCompletions:
        """Serve the same requests at another rate (1/s)."""
        arriving = self.requests.arriving(self.requests.arrived_at / rate)
        order, seconds = policy(self.spec.policy), self.spec.predictor_seconds
        return simulate(
            arriving, order, self.profile, self.server, self.predicted, seconds, self.memory
        )


def machine(spec: AliseRun) -> tuple[Profile, Server, Memory]:
    """The machine of a run: its model on its device, with the system's memory options."""
    profile, server, memory = deployed(spec.shape, spec.device)
    if spec.kv_share != 1.0:
        server = replace(server, kv_tokens=int((server.kv_tokens or 0) * spec.kv_share))
    memory = replace(
        memory,
        out_bytes_per_second=memory.out_bytes_per_second * spec.link_share,
        in_bytes_per_second=memory.in_bytes_per_second * spec.link_share,
    )
    return profile, server, replace(memory, **spec.memory)


def load_of(spec: AliseRun, seed: int) -> Load:
    """Draw requests from the pool, with Poisson arrivals at one per second."""
    pool = to_requests(draw({"draw": "prompted", **spec.workload.pool.as_json()}))
    n = spec.workload.requests
    rows = np.random.default_rng([seed, STREAMS["lengths"]]).integers(0, len(pool), n)
    gaps = np.random.default_rng([seed, STREAMS["arrivals"]]).exponential(1.0, n)
    requests = pool.take(rows).arriving(np.cumsum(gaps))
    return Load(spec, *machine(spec), requests, predicted_for(spec, requests, seed))


def curve(spec: AliseRun) -> pd.DataFrame:
    """Make a row per rate and seed; ``x`` is the rate over FCFS's saturation rate."""
    return _rows(spec, spec.loads, lambda load, x, saturation: x * saturation)


def limits(spec: AliseRun) -> pd.DataFrame:
    """Make a row per bound and seed: the highest rate with a mean normalised latency within it.

    ``x`` is the bound in seconds per token. The rate is bisected to ``PRECISION`` and capped at
    ``WIDEST`` times FCFS's saturation rate; the other columns are of the run at that rate.
    """

    def rate(load: Load, bound: float, saturation: float) -> float:
        return min(highest_rate(load, bound, saturation), saturation * WIDEST)

    return _rows(spec, spec.bounds, rate)


def _rows(
    spec: AliseRun, xs: list[float], rate_of: Callable[[Load, float, float], float]
) -> pd.DataFrame:
    """Run every seed at the rate of every x, which may depend on FCFS's saturation rate."""
    rows = []
    for seed in spec.workload.seeds:
        load = load_of(spec, seed)
        saturation = saturation_rate(load.requests, load.profile, load.server)
        for x in xs:
            rate = rate_of(load, x, saturation)
            rows.append({"x": x, "seed": seed, "run": 0, "rate": rate, **_measured(load, rate)})
    return typed(rows)


def highest_rate(load: Load, bound: float, start: float) -> float:
    """Find the highest rate (1/s) with a mean normalised latency of at most ``bound`` s/token.

    With ``keeps_up`` in the specification, ``FINISHED_IN_TIME`` of the requests must also finish
    before the last one arrives: in an overload that ends, a policy that serves long requests last
    has a low mean meanwhile. Infinite if even all at once is within the bound. InputError if not
    even a nearly idle server is.
    """
    spec = load.spec

    def within(rate: float) -> bool:
        done = load.served(rate)
        jct = done.finished_at - done.requests.arrived_at
        in_time = (done.finished_at <= done.requests.arrived_at[-1]).mean()
        keeps_up = not spec.keeps_up or in_time >= FINISHED_IN_TIME
        return bool(keeps_up and np.mean(jct / done.requests.output_tokens) <= bound)

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


def _measured(load: Load, rate: float) -> dict[str, float]:
    done, requests = load.served(rate), load.requests
    alone = load.profile.alone_seconds(requests.prompt_tokens, requests.output_tokens)
    values = metrics.summarise(done, alone)
    counted = {f"{name}_per_request": done.counters[name] / len(done) for name in COUNTED}
    return {name: values[name] for name in KEPT} | counted | {
        "swapped_share": float((done.swapped_seconds > 0).mean()),
        "swapped_seconds_mean": float(done.swapped_seconds.mean()),
    }  # fmt: skip
