"""The steady-state protocol: an open loop at a utilisation, simulated or served by vLLM.

The published protocol makes its rows, one per repetition or per request, with these functions too.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ssjf.analysis import metrics
from ssjf.errors import InputError
from ssjf.experiments.draws import draw, to_requests
from ssjf.experiments.specs import NaturalRun, Queued, SteadyRun
from ssjf.experiments.workloads import Arrivals, OpenLoop
from ssjf.harness.deployment import deployment
from ssjf.proxy import predict
from ssjf.request import Completions, FloatArray, Requests
from ssjf.scheduler import policy
from ssjf.simulator.contract import Shadow
from ssjf.simulator.profile import Profile, profile
from ssjf.simulator.server import Server
from ssjf.simulator.simulate import simulate
from ssjf.workload import synthetic

Serve = Callable[[SteadyRun, Requests, Server, Any, int], Completions]
STREAMS = {"lengths": 0, "arrivals": 1, "predictor": 2, "jitter": 3}
"""Random streams of each seed."""
SATURATING = 5000  # requests for simulating the saturation rate


def simulated(
    spec: SteadyRun, requests: Requests, server: Server, predicted, seed: int
) -> Completions:
    """Serve a run with the simulator."""
    model = profile(spec.profile)
    order = policy(order_name(spec, requests, model, server, predicted))
    return simulate(requests, order, model, server, predicted, spec.predictor_seconds)


def order_name(
    spec: SteadyRun | NaturalRun, requests: Requests, model: Profile, server: Server, predicted: Any
) -> str:
    """The policy's name; with ``times``, parameters come from FCFS's queue of this traffic."""
    if spec.times is None:
        return spec.policy
    shadow = Shadow.of(simulate(requests, policy("fcfs"), model, server))
    wait = max(shadow.wait, 1e-6)
    if spec.policy == "due":
        numbers = [spec.times, wait, shadow.tail, shadow.token]
    elif spec.policy == "headroom":
        numbers = [*shadow.room(spec.times, spec.share or 0.0, predicted, server.slots)]
    else:
        most = [] if spec.longest is None else [np.quantile(predicted, spec.longest)]
        numbers = [spec.times * wait, *most]
    return f"{spec.policy}:{','.join(repr(float(each)) for each in numbers)}"


def rows(spec: SteadyRun, serve: Serve = simulated) -> pd.DataFrame:
    """Make the rows of an open-loop run, a repetition per seed, served by ``serve``."""
    return table(spec, [_repetition(spec, seed, serve) for seed in spec.workload.seeds])


def _repetition(spec: SteadyRun, seed: int, serve: Serve) -> Any:
    requests, server, predicted = open_loop(spec, seed)
    done = serve(spec, requests, server, predicted, seed)
    alone = profile(spec.profile).alone_seconds(requests.prompt_tokens, requests.output_tokens)
    values = row(spec, spec.rho, seed, 0, done, alone)
    if spec.slowdown_quantiles:
        grid, quantiles = metrics.slowdown_quantiles(done, alone, spec.warmup_fraction)
        values |= {f"slowdown_q{p:.6f}": v for p, v in zip(grid, quantiles, strict=True)}
    return values


def row(spec: Queued, x, seed, run, done: Completions, alone: FloatArray) -> Any:
    """The metrics of one repetition, or a table of its requests, as ``detail`` says."""
    if spec.detail == "requests":
        requests = done.requests
        return pd.DataFrame({
            "x": np.float32(x), "seed": np.int32(seed), "run": np.int32(run),
            "arrived_at": requests.arrived_at,
            "output_tokens": requests.output_tokens.astype(np.int32),
            "scheduled_at": done.scheduled_at, "first_token_at": done.first_token_at,
            "finished_at": done.finished_at,
        })  # fmt: skip
    values = metrics.summarise(done, alone, spec.warmup_fraction)
    if spec.columns is not None:
        values["preemptions"] = float(done.preemptions.sum())
        values = {name: values[name] for name in spec.columns}
    return {"x": x, "seed": seed, "run": run, **values}


def table(spec: Queued, parts: list[Any]) -> pd.DataFrame:
    """Join the results of ``row`` for all repetitions."""
    if spec.detail == "requests":
        return pd.concat(parts, ignore_index=True)
    return typed(parts)


def typed(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows of numbers in 32 bits, as they are stored."""
    frame = pd.DataFrame(rows)
    floats = dict.fromkeys(frame.columns.difference(["seed", "run"]), np.float32)
    return frame.astype(floats | {"seed": np.int32, "run": np.int32})


def open_loop(spec: SteadyRun, seed: int) -> tuple[Requests, Server, Any]:
    """Make the requests at utilisation ``rho``, the server, and predictions (or None).

    Requests and gaps are the same at every load: Poisson, or as ``arrivals`` of the workload says.
    """
    workload, model = spec.workload, profile(spec.profile)
    server = server_on(spec.deployment, spec.slots, **spec.server.as_json())
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
        rate = _steady_rate(spec.rho, float(alone), server.slots)
    arriving = requests.arriving(_gaps(workload.arrivals, n, seed) / rate)
    return arriving, server, predicted_for(spec, arriving, seed)


def predicted_for(spec: Queued, requests: Requests, seed: int) -> FloatArray | None:
    """Predictions of a run's predictor, or None without one."""
    rng = np.random.default_rng([seed, STREAMS["predictor"]])
    return predict(spec.predictor, requests, rng) if spec.predictor else None


def pool_of(workload: OpenLoop) -> Requests:
    """The pool to draw from, with prompts of one length if the workload says so."""
    if workload.pool is None:
        raise InputError("a workload that draws from a pool must name it")
    pool = to_requests(draw(workload.pool.as_json()))
    if workload.prompt_tokens is None:
        return pool
    return replace(pool, prompt_tokens=np.full(len(pool), workload.prompt_tokens))


def server_on(deployment_name: str | None, slots: int, **given: Any) -> Server:
    """A server with the options of a deployment, if there is one, replaced by ``given``."""
    if deployment_name is not None:
        has = deployment(deployment_name)
        names = ("kv_tokens", "block_tokens", "token_budget")
        given = {name: getattr(has, name) for name in names} | given
    return Server(slots=slots, **given)


def saturation_rate(pool: Requests, model: Profile, server: Server) -> float:
    """Requests/s that the server completes under FCFS if all arrive at once, simulated.

    Unlike slots / mean service time alone it includes the cost of larger batches, prefills and
    short KV memory. ``SATURATING`` requests are drawn from the pool, always the same.
    """
    drawn = np.random.default_rng(0).integers(0, len(pool), SATURATING)
    requests = pool.take(drawn).arriving(np.zeros(SATURATING))
    done = simulate(requests, policy("fcfs"), model, server)
    return SATURATING / float(done.finished_at.max())


def _gaps(options: Arrivals, n: int, seed: int) -> np.ndarray:
    """Arrivals at a mean rate of one per second: Poisson, Gamma (``cv``) or a trace's; ``rates``
    multiply it for parts of the requests."""
    rng = np.random.default_rng([seed, STREAMS["arrivals"]])
    if options.trace is not None and options.window is not None:
        arrived = _trace_gaps(options.trace, options.window, 0)
        turned = np.roll(np.diff(arrived, prepend=0.0), -rng.integers(options.window))
        return np.cumsum(np.resize(turned, n))  # repeated, from a random start
    if options.trace is not None:
        return _trace_gaps(options.trace, n, seed)
    if options.rates is not None:
        shares, rates = np.array(options.rates).T
        ends = np.rint(np.cumsum(shares) / shares.sum() * n).astype(np.int64)
        each = rates[np.searchsorted(ends, np.arange(n), side="right")]
        return np.cumsum(rng.exponential(1.0, n) / each)
    if options.cv is not None:
        return synthetic.arrivals("gamma", n, 1.0, rng, options.cv)
    return np.cumsum(rng.exponential(1.0, n))


def _trace_gaps(name: str, n: int, seed: int) -> np.ndarray:
    drawn = draw({"draw": "trace-gaps", "name": name, "requests": n, "seed": seed})
    return drawn["arrived_at"].to_numpy()


def _steady_rate(rho: float, alone_seconds: float, slots: int) -> float:
    """The arrival rate for ``rho``, which must allow a steady state."""
    if not 0 < rho < 1:
        limit = synthetic.rate_for(1.0, alone_seconds, slots)
        raise InputError(
            f"rho is {rho:g}; a steady state needs one above 0 and below 1, here a rate below "
            f"{limit:.6g} requests/s"
        )
    return synthetic.rate_for(rho, alone_seconds, slots)
