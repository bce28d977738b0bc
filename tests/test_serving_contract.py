"""The server's contract: keys by hand, and what is learned in passing."""

import asyncio
import heapq
import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from prometheus_client import REGISTRY

import commands
from serving_tools import HEADER, PATIENT, called, read, reply, wrapped
from ssjf.request import Requests
from ssjf.scheduler import policy
from ssjf.serving import tuner
from ssjf.serving.forecaster import Forecaster
from ssjf.serving.options import ServeOptions
from ssjf.serving.priority import Keys
from ssjf.serving.tuner import CAUTIOUS, Done, Tuner
from ssjf.simulator.contract import FCFS, Contract, tuned
from ssjf.simulator.profile import Profile
from ssjf.simulator.server import Server
from ssjf.simulator.simulate import simulate

CONTRACT = "p99=1.05,p999=1.10"
FAST = Profile("fast", step_seconds=0.02)
CONFIG = SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=32))
OF_32_SLOTS = SimpleNamespace(state=SimpleNamespace(vllm_config=CONFIG))
"""A web application as vLLM makes it."""


def drifting(n=16_000, slots=4, seed=0):
    """Quiet, then busy, then quiet again; log-normal lengths, a predictor with noise."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(np.rint(rng.lognormal(4.5, 0.8, n)), 1, 1500).astype(np.int64)
    rho = np.where((np.arange(n) > n // 4) & (np.arange(n) < 3 * n // 4), 0.92, 0.4)
    gaps = rng.exponential(0.02 * lengths.mean() / slots, n) / rho
    requests = Requests(np.cumsum(gaps), np.ones(n, int), lengths)
    return requests, lengths * rng.lognormal(0, 0.5, n)


def orders():
    """What the metrics say of the order in use."""
    (metric,) = (each for each in REGISTRY.collect() if each.name == "ssjf_policy")
    return [(each.labels["policy"], each.labels["why"]) for each in metric.samples if each.value]


def test_the_metrics_say_which_order_is_in_use_and_why(monkeypatch):
    monkeypatch.setattr(tuner, "EVERY", 4000)
    kept = Tuner(CONTRACT, slots=4)
    assert orders() == [(CAUTIOUS, "fewer than 4000 requests have finished")]
    requests, predicted = drifting(n=10_000)
    done = simulate(requests, policy("fcfs"), FAST, Server(slots=4))
    busy = np.arange(2600, 6600)
    for i in busy[np.argsort(done.finished_at[busy])]:
        row = requests.arrived_at[i], predicted[i], requests.output_tokens[i]
        kept.finished(Done(*row, done.finished_at[i]))
    kept_by = f"{Contract.of(CONTRACT)} is kept by the last 4000, best mean"
    assert orders() == [("headroom", kept_by)]
    assert REGISTRY.get_sample_value("ssjf_contract_tail_ratio", {"quantile": "p99"}) <= 1.06
    Keys(ServeOptions(policy="ssjf-aged:9"))
    assert orders() == [("ssjf-aged:9", "fixed")]


SEVERAL = """
from prometheus_client import CollectorRegistry, generate_latest, multiprocess
from ssjf.serving.metrics import metrics
for name in ("headstart:1", "headroom", "fcfs"):
    metrics().say_policy(name, "a test")
multiprocess.MultiProcessCollector(registry := CollectorRegistry())
print(generate_latest(registry).decode())
"""


def test_with_several_server_processes_one_order_is_in_use_too(tmp_path):
    env = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", SEVERAL], env=env, capture_output=True, text=True)
    told = [line for line in done.stdout.splitlines() if line.startswith("ssjf_policy{")]
    assert len(told) == 3, done.stderr
    assert [line for line in told if line.endswith(" 1.0")] == [
        line for line in told if 'policy="fcfs"' in line
    ]


def test_keys_by_hand():
    kept = Tuner(CONTRACT, 8)
    keys = Keys(ServeOptions(), kept)
    assert keys.priority(50.0, 100.0) == round(1000 * (50 + math.log(100)))  # cautious: 1 s
    # A head start of 10 s, and all of the room to 40 s, from 10 to 1000 tokens; 1 slot, 1 s a token
    kept.policy = tuned((10.0, 1.0, 40.0, 10.0, 1000.0, 1.0, 1.0))
    assert keys.priority(50.0, 5000) == round(1000 * (50 + 10 * math.log(100) + 40))
    one, other = object(), object()
    keys.in_flight.enter(one, 30.0)
    keys.in_flight.enter(other, 5.0)
    assert keys.priority(50.0, 5000) == round(1000 * (50 + 10 * math.log(100) + 5))
    keys.in_flight.leave(one)
    keys.in_flight.leave(one)
    assert keys.priority(50.0, 5000) == round(1000 * (50 + 10 * math.log(100) + 35))
    keys.in_flight.leave(other)
    assert len(keys.in_flight) == keys.in_flight.tokens == 0


def test_a_server_without_a_queue_is_left_alone(monkeypatch):
    monkeypatch.setattr(tuner, "EVERY", 1000)
    requests, predicted = drifting(n=1000, slots=1)
    kept = Tuner(CONTRACT, slots=1000)
    for row in zip(requests.arrived_at, predicted, requests.output_tokens, strict=True):
        kept.finished(Done(*row, row[0] + 0.02 * row[2]))
    assert kept.policy.score.parameters == FCFS
    assert orders() == [("fcfs", tuner.NONE_KEEPS)]


def test_a_token_is_timed_where_some_wait_and_where_all_do():
    """64 clients on 4 slots, each of whom waits for its answer: no slot is ever idle."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 200, 3000)
    arrived, finished, free, ready = np.zeros(3000), np.zeros(3000), [0.0] * 4, [0.0] * 64
    for i, tokens in enumerate(lengths):
        arrived[i] = heapq.heappop(ready)
        finished[i] = max(arrived[i], heapq.heappop(free)) + 0.02 * tokens
        for each in (free, ready):
            heapq.heappush(each, finished[i])
    assert np.quantile((finished - arrived) / lengths, tuner.ALONE) > 0.1
    assert tuner.step_seconds(arrived, lengths, finished, 4) == pytest.approx(0.02, rel=0.02)
    alone = arrived + 100.0 * np.arange(3000)
    done = alone + 0.02 * lengths
    assert tuner.step_seconds(alone, lengths, done, 4) == pytest.approx(0.02, rel=1e-6)


def test_the_middleware_orders_by_the_contract_and_tells_the_tuner(monkeypatch):
    """Each answer is of as many tokens as was asked for, and every fifth makes it choose."""
    monkeypatch.setattr(tuner, "EVERY", 5)
    chosen, priorities = [], []
    monkeypatch.setattr(Tuner, "_choose", lambda self: chosen.append(list(self._rows)))

    async def app(scope, receive, send):
        asked = json.loads(await read(receive))
        priorities.append(int(dict(scope["headers"])[HEADER]))
        usage = {"usage": {"completion_tokens": int(asked["prompt"])}}
        answer = {"choices": [{"finish_reason": "stop"}], **usage}
        await reply(send, json.dumps(answer).encode())

    served = wrapped(app, kind=Forecaster, learn="none", **PATIENT)

    async def everything():
        for tokens in (10, 400, 10, 400, 10):
            members = {"prompt": str(tokens), "max_tokens": 1000}
            await called(served, members, app=OF_32_SLOTS)
        await asyncio.to_thread(served._predictor.stop)

    asyncio.run(everything())
    assert served._predictor.learner.tuner.slots == 32
    (rows,) = chosen
    assert [row.output_tokens for row in rows] == [10, 400, 10, 400, 10]
    assert all(row.finished_at > row.arrived_at for row in rows)
    apart = 1000 * math.log(40)
    assert priorities[1] - priorities[0] >= apart - 2 and priorities[2] < priorities[1]


def test_options_of_a_contract():
    found = commands.ssjf("serve", "MODEL", "--dry-run", "--contract", CONTRACT)
    assert f"SSJF_SERVE_CONTRACT={CONTRACT}" in found.stdout
    wrong = commands.ssjf("serve", "MODEL", "--dry-run", "--contract", "p99=0.5")
    assert wrong.exit_code == 2 and "p99=0.5; it must be a number of at least 1" in wrong.stderr
