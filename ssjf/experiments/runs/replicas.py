"""Replicas on Ray Serve: bursts of simultaneous requests, served in two orders.

Filler requests hold all slots while a burst is sent; when the whole burst waits, the fillers are
cancelled and the clock starts. Both orders are headers of the same requests to the same servers, in
turn (fcfs, ssjf, ssjf, fcfs), so that the changing speed of a shared machine affects both alike;
their ratio is compared. The cluster simulator serves the same requests.
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
from ssjf.harness.server import HOST, LiveServer
from ssjf.proxy import predict
from ssjf.request import FloatArray, IntArray, Requests
from ssjf.scheduler import Queue, policy
from ssjf.scheduler.routers import router
from ssjf.serving.options import ServeOptions
from ssjf.simulator.cluster import Replica, simulate_cluster
from ssjf.simulator.profile import profile
from ssjf.workload import synthetic

PLAIN = ServeOptions(policy="ssjf", learn="none", client_priority="trust")
"""Options of `ssjf serve` that pass a client's priority unchanged."""
ANSWERED_BY = "x-ssjf-replica"
HOLDING_TOKENS = 1900
POLL_SECONDS = 0.2
GAP_SECONDS = 0.002  # the sockets of one instant would be accepted in any order


def rows(spec: ReplicasRun) -> pd.DataFrame:
    """Make a row per request, burst (``run``) and order (its index in ``orders``).

    Columns: ``finished_at`` at the client and ``simulated_finished_at``, in s since the burst could
    start, and the index of the replica.
    """
    requests, predicted = drawn(spec)
    live = _server(spec.deployment, spec.slots, spec.replicas, spec.router)
    parts, held = [], spec.replicas * spec.slots
    for run in range(spec.workload.bursts):
        for place in [*range(len(spec.orders))][:: -1 if run % 2 else 1]:  # a b, b a, …
            priorities = ranks(spec.orders[place], requests, predicted)
            table = asyncio.run(_burst(live, requests.output_tokens, priorities, held))
            simulated = _simulated(spec, spec.orders[place], predicted, table)
            table = table.assign(simulated_finished_at=simulated, predicted_tokens=predicted)
            parts.append(table.assign(order=place, run=run))
    table = pd.concat(parts, ignore_index=True).assign(x=0.0, seed=spec.seed)
    table["replica"] = table["replica"].astype("category").cat.codes.astype(np.int32)
    table.attrs["environment"] = server.environment_of(deployment(spec.deployment))
    return table


def drawn(spec: ReplicasRun) -> tuple[Requests, FloatArray]:
    """Draw the requests of a run, all arriving at 0 with equal prompts, and their predictions."""
    of = spec.workload
    rng = np.random.default_rng([spec.seed, STREAMS["lengths"]])
    tokens = synthetic.lognormal(of.requests, of.mean, of.sigma, rng, of.most)
    requests = Requests(np.zeros(len(tokens)), np.ones(len(tokens), np.int64), tokens)
    rng = np.random.default_rng([spec.seed, STREAMS["predictor"]])
    return requests, predict(spec.predictor, requests, rng)


def ranks(order: str, requests: Requests, predicted: FloatArray) -> IntArray:
    """vLLM's priorities for an order: ranks from 0, ties by arrival."""
    arrived, none = np.arange(len(requests), dtype=float), np.zeros(len(requests), np.int64)
    queue = Queue(arrived, requests.prompt_tokens, predicted, none)
    return np.argsort(np.argsort(policy(order).scores(queue, 0.0), kind="stable"))


def _simulated(
    spec: ReplicasRun, order: str, predicted: FloatArray, table: pd.DataFrame
) -> FloatArray:
    """Finish times of the same requests in the cluster simulator, all arriving at 0."""
    prompts, tokens = table["prompt_tokens"].to_numpy(), table["output_tokens"].to_numpy()
    requests = Requests(np.zeros(len(tokens)), prompts, tokens)
    each = Replica(profile(spec.profile), server_on(spec.deployment, spec.slots))
    done = simulate_cluster(requests, policy(order), [each] * spec.replicas, router(spec.router),
                            predicted, seed=spec.seed)  # fmt: skip
    return done.finished_at


@cache
def _server(deployment_name: str, slots: int, replicas: int, router_name: str) -> LiveServer:
    """Start and warm up the replicas; they are kept for later runs."""
    more = ["--replicas", str(replicas), "--router", router_name]
    live = server.live_server(deployment(deployment_name), slots, PLAIN, more)
    live.start()
    atexit.register(live.close)
    warming = np.full(4 * replicas * slots, 8)
    asyncio.run(_burst(live, warming, np.arange(len(warming)), replicas * slots))
    return live


async def _burst(
    live: LiveServer, tokens: IntArray, priorities: IntArray, held: int
) -> pd.DataFrame:
    """Send a burst for answers of the given lengths and release it at once; a row per answer.

    held: total slots of all replicas.
    """
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=None, limits=limits) as client:
        holding = [asyncio.create_task(_hold(client, live)) for _ in range(held)]
        await _until(client, live, "running", held)
        sent = []
        for i, priority in enumerate(priorities):
            words = f"Say something long about number {i}."
            asked = _request(client, live, words, int(tokens[i]), int(priority))
            sent.append(asyncio.create_task(_row(client, asked, int(tokens[i]))))
            await asyncio.sleep(GAP_SECONDS)
        await _until(client, live, "waiting", len(sent))
        for each in holding:
            each.cancel()
        began = time.perf_counter()
        table = pd.DataFrame(await asyncio.gather(*sent))
        return table.assign(arrived_at=0.0, finished_at=table["finished_at"] - began)


def _request(
    client: httpx.AsyncClient, live: LiveServer, words: str, tokens: int, priority: int
) -> httpx.Request:
    body = {"model": live.model, "prompt": words, "max_tokens": tokens, "ignore_eos": True}
    url = f"http://{HOST}:{live.port}/v1/completions"
    return client.build_request("POST", url, json=body, headers={PRIORITY: str(priority)})


async def _hold(client: httpx.AsyncClient, live: LiveServer) -> None:
    """Hold a slot until cancelled, with a priority before all others."""
    while True:
        asked = _request(client, live, "Hold a slot until all are here.", HOLDING_TOKENS, -1)
        (await client.send(asked)).raise_for_status()


async def _until(client: httpx.AsyncClient, live: LiveServer, what: str, n: int) -> None:
    """Wait until n requests are running (or waiting), summed over all replicas."""
    name, found = f"vllm:num_requests_{what}{{", -1.0
    while found < n:
        answer = await client.get(f"http://{HOST}:{live.port}/metrics")
        lines = [line for line in answer.text.splitlines() if line.startswith(name)]
        found = sum(float(line.rpartition(" ")[2]) for line in lines)
        await asyncio.sleep(POLL_SECONDS)


async def _row(client: httpx.AsyncClient, asked: httpx.Request, tokens: int) -> dict[str, Any]:
    answer = await client.send(asked)
    finished_at = time.perf_counter()
    if answer.status_code != 200:
        raise InputError(f"a request failed with status {answer.status_code}: {answer.text[:200]}")
    usage = answer.json()["usage"]
    if usage["completion_tokens"] != tokens:
        raise InputError(f"{tokens} tokens were asked for and {usage['completion_tokens']} came")
    return {"finished_at": finished_at, "output_tokens": tokens,
            "prompt_tokens": usage["prompt_tokens"],
            "replica": answer.headers[ANSWERED_BY]}  # fmt: skip
