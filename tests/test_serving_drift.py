"""The whole middleware under a load that drifts, in a time of its own: hours pass in seconds.

Requests go through the real middleware to slots that take the smallest priority first. Only its
clock and its threads are other ones: the clock is that of an event loop which, when nothing is
left to do, goes on to what is due next.
"""

import asyncio
import heapq
import json
from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np

from serving_tools import HEADER, PATIENT, called, read, reply, wrapped
from ssjf.request import Requests
from ssjf.serving import predictor, priority, tuner, worker
from ssjf.serving.forecaster import Forecaster

SLOTS, TOKEN_SECONDS = 4, 0.02
CONFIG = SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=SLOTS))
APP = SimpleNamespace(state=SimpleNamespace(vllm_config=CONFIG))


class Jumping(asyncio.SelectorEventLoop):
    """An event loop whose clock stands still while there is something to do, and then jumps."""

    now = 0.0

    def time(self):
        return self.now

    def _run_once(self):
        while self._scheduled and self._scheduled[0].cancelled():
            heapq.heappop(self._scheduled)._scheduled = False
            self._timer_cancelled_count -= 1
        if not self._ready and self._scheduled:
            self.now = max(self.now, self._scheduled[0].when())
        super()._run_once()


class Slots:
    """Answers with as many tokens as the prompt says; of what waits the smallest priority first,
    or who came first."""

    def __init__(self, ordered):
        self._free, self._waiting, self._ordered, self._count = SLOTS, [], ordered, 0

    async def __call__(self, scope, receive, send):
        _, tokens = json.loads(await read(receive))["prompt"].split()
        key = int(dict(scope["headers"])[HEADER]) if self._ordered else 0
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (key, self._count, turn))
        self._count += 1
        self._next()
        await turn
        await asyncio.sleep(int(tokens) * TOKEN_SECONDS)
        self._free += 1
        self._next()
        answer = {"choices": [{"finish_reason": "stop"}],
                  "usage": {"completion_tokens": int(tokens)}}  # fmt: skip
        await reply(send, json.dumps(answer).encode())

    def _next(self):
        if self._free and self._waiting:
            self._free -= 1
            heapq.heappop(self._waiting)[2].set_result(None)


def drifting(n=9000, seed=0):
    """Quiet, then busy, then quiet again; log-normal lengths, predictions with noise."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(np.rint(rng.lognormal(4.5, 0.8, n)), 1, 1500).astype(np.int64)
    rho = np.where((np.arange(n) > n // 3) & (np.arange(n) < 2 * n // 3), 0.95, 0.5)
    gaps = rng.exponential(TOKEN_SECONDS * lengths.mean() / SLOTS, n) / rho
    predicted = np.maximum(np.rint(lengths * rng.lognormal(0, 0.5, n)), 1).astype(int)
    return Requests(np.cumsum(gaps), np.ones(n, int), lengths), predicted


def served(app, loop, requests, predicted):
    """JCT of every request, in seconds of the loop's."""
    took = np.full(len(requests), np.nan)

    async def ask(i):
        prompt = f"{predicted[i]} {requests.output_tokens[i]}"
        began = loop.time()
        await called(app, {"prompt": prompt, "max_tokens": 4000}, app=APP)
        took[i] = loop.time() - began

    async def everything():
        tasks = []
        for i, arrived in enumerate(requests.arrived_at):
            await asyncio.sleep(arrived - loop.time())
            tasks.append(asyncio.create_task(ask(i)))
        await asyncio.gather(*tasks)

    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(everything())
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    return took


def at_once(self, function, *size):
    """A call of the middleware's threads, made here and now."""
    call = Future()
    call.set_result(function())
    return call


def test_a_load_that_drifts_keeps_its_contract_and_gains(monkeypatch):
    requests, predicted = drifting()
    loop = Jumping()
    clock = SimpleNamespace(monotonic=loop.time, perf_counter=loop.time)
    for module in (predictor, priority):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(worker.Worker, "submit", at_once)
    monkeypatch.setattr(tuner, "EVERY", 500)
    monkeypatch.setattr(tuner, "WINDOW", 4000)
    middleware = wrapped(Slots(ordered=True), kind=Forecaster, learn="none", **PATIENT)
    ours = served(middleware, loop, requests, predicted)
    first = served(Slots(ordered=False), Jumping(), requests, predicted)
    assert np.isfinite(ours).all() and np.isfinite(first).all()
    assert ours.mean() < 0.97 * first.mean()
    for level, limit in ((0.99, 1.05), (0.999, 1.10)):
        assert np.quantile(ours, level) <= limit * np.quantile(first, level)
