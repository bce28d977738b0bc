"""Replicas on Ray Serve: bursts that are all there from the start, in one order and the other.

Both orders are headers of the same requests to the same servers, in turn (fcfs, ssjf, ssjf, fcfs),
so that a machine that is shared, fast or slow, is so for both; what is compared is their ratio.
The cluster simulator serves the very same requests.
"""

import asyncio
import atexit
import time
from functools import cache
from typing import Any

import httpx
import numpy as np
import pandas as pd

from ssjf.errors import InputError
from ssjf.experiments.runs import server
from ssjf.experiments.runs.steady import STREAMS, server_on
from ssjf.experiments.specs import ReplicasRun
from ssjf.harness.chat_client import PRIORITY
from ssjf.harness.deployment import deployment
from ssjf.harness.server import HOST, LiveServer, options_of
from ssjf.proxy import predict
from ssjf.request import FloatArray, IntArray, Requests
from ssjf.scheduler import Queue, policy
from ssjf.scheduler.routers import router
from ssjf.serving.options import ServeOptions
from ssjf.simulator.cluster import Replica, simulate_cluster
from ssjf.simulator.profile import profile
from ssjf.workload import synthetic

PLAIN = ServeOptions(policy="ssjf", learn="none")
"""Of `ssjf serve`, which lets a priority of the client's pass."""
ANSWERED_BY = "x-ssjf-replica"
GAP_SECONDS = 0.002  # the sockets of one instant would be accepted in any order


def rows(spec: ReplicasRun) -> pd.DataFrame:
    """A row per request, burst (``run``) and order (its place in ``orders``): ``arrived_at`` and
    ``finished_at`` at the client, ``simulated_finished_at``, and the place of the replica."""
    requests, predicted = drawn(spec)
    live = _server(spec.deployment, spec.slots, spec.replicas, spec.router)
    parts = []
    for run in range(spec.workload.bursts):
        for place in [*range(len(spec.orders))][:: -1 if run % 2 else 1]:  # a b, b a, …
            priorities = ranks(spec.orders[place], requests, predicted)
            table = asyncio.run(_burst(live, requests.output_tokens, priorities))
            simulated = _simulated(spec, spec.orders[place], predicted, table)
            table = table.assign(simulated_finished_at=simulated, predicted_tokens=predicted)
            parts.append(table.assign(order=place, run=run))
    table = pd.concat(parts, ignore_index=True).assign(x=0.0, seed=spec.seed)
    table["replica"] = table["replica"].astype("category").cat.codes.astype(np.int32)
    table.attrs["environment"] = server.hardware() | {"clock": "of the client"}
    return table


def drawn(spec: ReplicasRun) -> tuple[Requests, FloatArray]:
    """The requests of a run, all there at 0, and what is predicted of them; prompts all alike."""
    of = spec.workload
    rng = np.random.default_rng([spec.seed, STREAMS["lengths"]])
    tokens = synthetic.lognormal(of.requests, of.mean, of.sigma, rng, of.most)
    requests = Requests(np.zeros(len(tokens)), np.ones(len(tokens), np.int64), tokens)
    rng = np.random.default_rng([spec.seed, STREAMS["predictor"]])
    return requests, predict(spec.predictor, requests, rng)


def ranks(order: str, requests: Requests, predicted: FloatArray) -> IntArray:
    """vLLM's priorities for an order: 0 goes first, of equals the first to come."""
    arrived, none = np.arange(len(requests), dtype=float), np.zeros(len(requests), np.int64)
    queue = Queue(arrived, requests.prompt_tokens, predicted, none)
    return np.argsort(np.argsort(policy(order).scores(queue, 0.0), kind="stable"))


def _simulated(
    spec: ReplicasRun, order: str, predicted: FloatArray, table: pd.DataFrame
) -> FloatArray:
    """When the cluster simulator finishes what came, from when it came."""
    columns = ("arrived_at", "prompt_tokens", "output_tokens")
    requests = Requests(*(table[name].to_numpy() for name in columns))
    each = Replica(profile(spec.profile), server_on(spec.deployment, spec.slots))
    done = simulate_cluster(requests, policy(order), [each] * spec.replicas, router(spec.router),
                            predicted, seed=spec.seed)  # fmt: skip
    return done.finished_at


@cache
def _server(deployment_name: str, slots: int, replicas: int, router_name: str) -> LiveServer:
    """The replicas behind their address, warmed up, kept for the runs that follow."""
    has = deployment(deployment_name)
    model = has.folder() or server._model(str(has.shape))
    options = [*options_of(has, slots, model), "--replicas", str(replicas), "--router", router_name]
    live = LiveServer(str(model), options, PLAIN.environment())
    live.start()
    atexit.register(live.close)
    warming = np.full(4 * replicas * slots, 8)
    asyncio.run(_burst(live, warming, np.arange(len(warming))))
    return live


async def _burst(live: LiveServer, tokens: IntArray, priorities: IntArray) -> pd.DataFrame:
    """Ask for answers of so many tokens, all at once, in order; a row for each."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=None, limits=limits) as client:
        began, sent = time.perf_counter(), []
        for i, priority in enumerate(priorities):
            asked = client.build_request(
                "POST", f"http://{HOST}:{live.port}/v1/completions",
                headers={PRIORITY: str(priority)},
                json={"model": live.model, "prompt": f"Say something long about number {i}.",
                      "max_tokens": int(tokens[i]), "ignore_eos": True},
            )  # fmt: skip
            sent.append(asyncio.create_task(_row(client, asked, int(tokens[i]), began)))
            await asyncio.sleep(GAP_SECONDS)
        return pd.DataFrame(await asyncio.gather(*sent))


async def _row(
    client: httpx.AsyncClient, asked: httpx.Request, tokens: int, began: float
) -> dict[str, Any]:
    arrived_at = time.perf_counter() - began
    answer = await client.send(asked)
    finished_at = time.perf_counter() - began
    if answer.status_code != 200:
        raise InputError(f"a request failed with status {answer.status_code}: {answer.text[:200]}")
    usage = answer.json()["usage"]
    if usage["completion_tokens"] != tokens:
        raise InputError(f"{tokens} tokens were asked for and {usage['completion_tokens']} came")
    return {"arrived_at": arrived_at, "finished_at": finished_at, "output_tokens": tokens,
            "prompt_tokens": usage["prompt_tokens"],
            "replica": answer.headers[ANSWERED_BY]}  # fmt: skip
