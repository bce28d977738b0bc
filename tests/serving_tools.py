"""A proxy that can be told to fail, applications to serve, and a real server around them."""

import asyncio
import contextlib
import heapq
import json
import re
import threading
import time

import numpy as np
import uvicorn
from prometheus_client import REGISTRY

from ssjf.proxy.base import Prediction
from ssjf.serving.forecaster import Refitting
from ssjf.serving.middleware import Middleware
from ssjf.serving.online import OnlineLearner
from ssjf.serving.options import ServeOptions
from ssjf.serving.predictor import Predictor
from ssjf.serving.tuner import Tuner

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
PATIENT = {"deadline_ms": 60_000}  # no prediction comes too late
HEADER = b"x-vllm-priority"


class FakeProxy:
    """Predicts the first number in a prompt, 50 where there is none; ``mode`` makes it fail."""

    def __init__(self):
        self.mode, self.calls, self.go_on = "well", 0, threading.Event()

    def predict(self, prompts):
        if self.mode == "fails":
            raise RuntimeError(f"cannot read {prompts[0]}")
        if self.mode == "exits":
            raise SystemExit
        if self.mode == "no lengths":
            return Prediction(np.full(len(prompts), np.nan), np.zeros((len(prompts), 1)), (0.5,))
        if self.mode == "slow":
            time.sleep(0.05)
        if self.mode == "held":
            self.go_on.wait(600)
        self.calls += 1
        found = np.array([number(prompt) for prompt in prompts])
        return Prediction(found, np.stack([found, 2 * found], axis=1), (0.5, 0.95))


def number(prompt):
    found = re.search(r"\d+", prompt)
    return float(found[0]) if found else 50.0


def wrapped(
    app, proxy=None, kind=Refitting, state=None, history=False, takes=0.001, **options
):  # fmt: skip
    """The middleware around an application, with a fake proxy that takes so many seconds."""
    chosen = ServeOptions(**options)
    forecaster = kind(proxy or FakeProxy(), history)
    tuner = None if chosen.policy else Tuner(chosen.contract)
    most = int(1e6 * chosen.max_state_mb)
    learner = OnlineLearner(forecaster, state, chosen.save_seconds, most, tuner)
    given = None if chosen.deadline_ms is None else chosen.deadline_ms / 1000
    return Middleware(app, chosen, Predictor(forecaster, learner, takes, given))


async def read(receive):
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def reply(send, body=b"", status=200, kind=b"application/json", headers=()):
    headers = [(b"content-type", kind), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def live(receive, send):
    """The lifespan of an application that has nothing to prepare."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def echo(scope, receive, send):
    """Sends back the body as it came, and in headers what its headers said."""
    if scope["type"] == "lifespan":
        return await live(receive, send)
    seen = dict(scope["headers"])
    told = [(b"x-length", seen.get(b"content-length", b"")),
            (b"x-priority", seen.get(HEADER, b""))]  # fmt: skip
    await reply(send, await read(receive), headers=told)


class Engine:
    """One slot: of what waits the smallest (priority, arrival) is answered next.

    It starts with the first request once ``waits_for`` have come. ``served``: prompts in order.
    """

    def __init__(self, waits_for):
        self.waits_for, self.served = waits_for, []
        self._waiting, self._count = [], 0

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            return await live(receive, send)
        asked = json.loads(await read(receive))
        turn = asyncio.Event()
        priority = int(dict(scope["headers"])[HEADER])
        heapq.heappush(self._waiting, (priority, self._count, turn))
        self._count += 1
        if self._count == self.waits_for:
            self._next()
        await turn.wait()
        self.served.append(asked["prompt"])
        await reply(send, json.dumps(answer(7)).encode())
        self._next()

    def _next(self):
        if self._waiting:
            heapq.heappop(self._waiting)[2].set()

    @property
    def arrived(self):
        return self._count


def answer(tokens, finish="stop", chat=False):
    """A body as vLLM sends it."""
    said = {"message": {"role": "assistant", "content": "a"}} if chat else {"text": "a"}
    choice = {"index": 0} | said | {"logprobs": None, "finish_reason": finish}
    usage = {"prompt_tokens": 3, "total_tokens": 3 + tokens, "completion_tokens": tokens,
             "prompt_tokens_details": None}  # fmt: skip
    return {"id": "1", "choices": [choice], "usage": usage, "kv_transfer_params": None}


async def called(application, members, **scope):
    """A completion that is asked of the application in this process; what it says is not kept."""
    body = json.dumps(members).encode()
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        return messages.pop() if messages else await asyncio.get_running_loop().create_future()

    async def send(message):
        pass

    asked = {"type": "http", "method": "POST", "path": COMPLETIONS,
             "headers": [(b"content-length", b"%d" % len(body))]}  # fmt: skip
    await application(asked | scope, receive, send)


@contextlib.contextmanager
def serving(app):
    """A server on a free port, in a thread; its address."""
    config = uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started or not thread.is_alive())
    assert server.started
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(600)
        assert not thread.is_alive()


def until(true, seconds=600):
    """Wait for what comes to be true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.002)


def counted(name, **labels):
    """The value of one of the middleware's metrics."""
    return REGISTRY.get_sample_value(f"ssjf_{name}", labels) or 0.0


@contextlib.contextmanager
def counting(name, by=1, **labels):
    """The metric must rise by so much, if not at once then soon."""
    before = counted(name, **labels)
    yield
    until(lambda: counted(name, **labels) >= before + by)
    assert counted(name, **labels) == before + by
