"""The steady-state protocol's open loop: what arrives at a utilisation, and at which server."""

from dataclasses import replace
from typing import Any

import numpy as np

from ssjf.errors import InputError
from ssjf.experiments.draws import draw, to_requests
from ssjf.harness.deployment import deployment
from ssjf.proxy import predict
from ssjf.request import Requests
from ssjf.scheduler import policy
from ssjf.simulator.profile import Profile, profile
from ssjf.simulator.server import Server
from ssjf.simulator.simulate import simulate
from ssjf.workload import arrivals, lengths

Spec = dict[str, Any]

STREAMS = {"lengths": 0, "arrivals": 1, "predictor": 2, "jitter": 3}
"""Of random numbers, for each seed."""


def open_loop(spec: Spec, seed: int) -> tuple[Requests, Server, Any]:
    """What arrives at utilisation ``rho``, the server, and what is predicted (None without).

    The same requests and gaps at every load: a Poisson stream, or what ``arrivals`` of the
    workload says.
    """
    workload, model, server = spec["workload"], profile(spec["profile"]), server_of(spec)
    rng = np.random.default_rng([seed, STREAMS["lengths"]])
    n = workload.get("requests") or workload["requests_per_slot"] * server.slots
    if workload["draw"] == "synthetic":
        requests = lengths.synthetic(n, rng)
    else:
        pool = _prompted(workload, to_requests(draw(workload["pool"])))
        requests = pool.take(rng.integers(0, len(pool), n))
    if workload.get("rho_of") == "saturation":
        rate = _positive_rho(spec["rho"]) * saturation_rate(pool, model, server)
    else:
        alone = model.alone_seconds(requests.prompt_tokens, requests.output_tokens).mean()
        rate = _steady_rate(spec["rho"], float(alone), server.running_slots)
    arriving = requests.arriving(_gaps(workload.get("arrivals", {}), n, seed) / rate)
    rng = np.random.default_rng([seed, STREAMS["predictor"]])
    predicted = predict(spec["predictor"], arriving, rng) if "predictor" in spec else None
    return arriving, server, predicted


def _prompted(workload: Spec, pool: Requests) -> Requests:
    """Prompts all of one length, where the workload says so."""
    if "prompt_tokens" not in workload:
        return pool
    return replace(pool, prompt_tokens=np.full(len(pool), workload["prompt_tokens"]))


def server_of(spec: Spec) -> Server:
    """The server of a run; what it leaves open is the deployment's, where there is one."""
    given = spec.get("server", {}) | {"slots": spec["slots"]}
    if "deployment" in spec:
        has = deployment(spec["deployment"])
        names = ("kv_tokens", "block_tokens", "token_budget")
        given = {name: getattr(has, name) for name in names} | given
    return Server(**given)


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


def _positive_rho(rho: float) -> float:
    if not 0 < rho <= 2:
        raise InputError(f"rho is {rho:g}; of a finite run it must be above 0 and at most 2")
    return rho


def _gaps(options: Spec, n: int, seed: int) -> np.ndarray:
    """Arrivals at a mean rate of one a second: Poisson, Gamma gaps (``cv``), or a trace's."""
    rng = np.random.default_rng([seed, STREAMS["arrivals"]])
    if "trace" in options:
        drawn = draw({"draw": "trace-gaps", "name": options["trace"], "requests": n, "seed": seed})
        return drawn["arrived_at"].to_numpy()
    if "cv" in options:
        return arrivals.gamma(n, 1.0, options["cv"], rng)
    return np.cumsum(rng.exponential(1.0, n))


def _steady_rate(rho: float, alone_seconds: float, slots: int) -> float:
    """The arrival rate that gives ``rho``, which must leave the queue a steady state."""
    if not 0 < rho < 1:
        limit = arrivals.rate_for(1.0, alone_seconds, slots)
        raise InputError(
            f"rho is {rho:g}; a steady state needs one above 0 and below 1, here a rate below "
            f"{limit:.6g} requests/s"
        )
    return arrivals.rate_for(rho, alone_seconds, slots)
