"""The steady-state protocol's open loop: what arrives at a utilisation, and at which server."""

from dataclasses import replace
from typing import Any

import numpy as np

from ssjf.errors import InputError
from ssjf.experiments.draws import draw, to_requests
from ssjf.experiments.specs import SteadyRun
from ssjf.experiments.workloads import Arrivals, OpenLoop
from ssjf.harness.deployment import deployment
from ssjf.proxy import predict
from ssjf.request import Requests
from ssjf.scheduler import policy
from ssjf.simulator.profile import Profile, profile
from ssjf.simulator.server import Server
from ssjf.simulator.simulate import simulate
from ssjf.workload import synthetic

STREAMS = {"lengths": 0, "arrivals": 1, "predictor": 2, "jitter": 3}
"""Of random numbers, for each seed."""


def open_loop(spec: SteadyRun, seed: int) -> tuple[Requests, Server, Any]:
    """What arrives at utilisation ``rho``, the server, and what is predicted (None without).

    The same requests and gaps at every load: a Poisson stream, or what ``arrivals`` of the
    workload says.
    """
    workload, model, server = spec.workload, profile(spec.profile), server_of(spec)
    rng = np.random.default_rng([seed, STREAMS["lengths"]])
    n = workload.requests or (workload.requests_per_slot or 1) * server.slots
    if workload.draw == "synthetic":
        requests = synthetic.requests(n, rng)
    else:
        pool = pool_of(workload)
        requests = pool.take(rng.integers(0, len(pool), n))
    if workload.rho_of == "saturation":
        rate = spec.rho * saturation_rate(pool, model, server)
    else:
        alone = model.alone_seconds(requests.prompt_tokens, requests.output_tokens).mean()
        rate = _steady_rate(spec.rho, float(alone), server.running_slots)
    arriving = requests.arriving(_gaps(workload.arrivals, n, seed) / rate)
    rng = np.random.default_rng([seed, STREAMS["predictor"]])
    predicted = predict(spec.predictor, arriving, rng) if spec.predictor else None
    return arriving, server, predicted


def pool_of(workload: OpenLoop) -> Requests:
    """What is drawn from, its prompts all of one length where the workload says so."""
    if workload.pool is None:
        raise InputError("a workload that draws from a pool must name it")
    pool = to_requests(draw(workload.pool.as_json()))
    if workload.prompt_tokens is None:
        return pool
    return replace(pool, prompt_tokens=np.full(len(pool), workload.prompt_tokens))


def server_of(spec: SteadyRun) -> Server:
    """The server of a run; what it leaves open is the deployment's, where there is one."""
    given = spec.server.as_json()
    if spec.deployment is not None:
        return server_on(spec.deployment, spec.slots, **given)
    return Server(slots=spec.slots, **given)


def server_on(deployment_name: str, slots: int, **given: Any) -> Server:
    """A server of so many slots on a deployment; ``given`` beats what the deployment has."""
    has = deployment(deployment_name)
    names = ("kv_tokens", "block_tokens", "token_budget")
    return Server(slots=slots, **{name: getattr(has, name) for name in names} | given)


SATURATING = 5000


def saturation_rate(pool: Requests, model: Profile, server: Server) -> float:
    """Requests/s that the server completes when all are there from the start, FCFS, simulated.

    Unlike slots / mean service time alone it counts what a larger batch, prefills and short KV
    memory cost. ``SATURATING`` requests are drawn from the pool, always the same.
    """
    rows = np.random.default_rng(0).integers(0, len(pool), SATURATING)
    requests = pool.take(rows).arriving(np.zeros(SATURATING))
    done = simulate(requests, policy("fcfs"), model, server)
    return SATURATING / float(done.finished_at.max())


def _gaps(options: Arrivals, n: int, seed: int) -> np.ndarray:
    """Arrivals at a mean rate of one a second: Poisson, Gamma gaps (``cv``), or a trace's."""
    rng = np.random.default_rng([seed, STREAMS["arrivals"]])
    if options.trace is not None:
        drawn = draw({"draw": "trace-gaps", "name": options.trace, "requests": n, "seed": seed})
        return drawn["arrived_at"].to_numpy()
    if options.cv is not None:
        return synthetic.arrivals("gamma", n, 1.0, rng, options.cv)
    return np.cumsum(rng.exponential(1.0, n))


def _steady_rate(rho: float, alone_seconds: float, slots: int) -> float:
    """The arrival rate that gives ``rho``, which must leave the queue a steady state."""
    if not 0 < rho < 1:
        limit = synthetic.rate_for(1.0, alone_seconds, slots)
        raise InputError(
            f"rho is {rho:g}; a steady state needs one above 0 and below 1, here a rate below "
            f"{limit:.6g} requests/s"
        )
    return synthetic.rate_for(rho, alone_seconds, slots)
