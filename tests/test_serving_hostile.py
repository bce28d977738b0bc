"""Hostile input: it reaches the server byte for byte, and leaves nothing behind in ours."""

import asyncio
import gzip
import re
import sys
import threading
from importlib import import_module
from pathlib import Path

import pytest

from serving_tools import (
    CHAT,
    COMPLETIONS,
    HEADER,
    PATIENT,
    FakeProxy,
    counted,
    read,
    reply,
    until,
    wrapped,
)
from ssjf.proxy.light import features
from ssjf.serving.openai import MOST_PARTS, IncomingRequest
from ssjf.serving.worker import MOST_CHARACTERS, Worker

MB = 10**6
ROOT = Path(__file__).parents[1]


def nothing_left(middleware):
    """No request counts as under way any more."""
    keys = middleware._prioritiser._keys
    return (len(keys.in_flight) == 0 == keys.in_flight.tokens
            and not middleware._overtaking._waiting
            and middleware._predictor._waiting == 0
            and counted("in_flight_predicted_tokens") == 0)  # fmt: skip


async def passed(middleware_of, messages, headers=(), path=COMPLETIONS):
    """The body and headers that an application gets of a request."""
    got = {}

    async def app(scope, receive, send):
        got["body"], got["headers"] = await read(receive), scope["headers"]
        await reply(send, b'{"error": 1}', 400)

    left, sent = iter(messages), []

    async def receive():
        return next(left)

    async def send(message):
        sent.append(message)

    middleware = middleware_of(app)
    scope = {"type": "http", "method": "POST", "path": path, "headers": [*headers]}
    await middleware(scope, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 400 and sent[1]["body"] == b'{"error": 1}'
    assert nothing_left(middleware)
    assert int(dict(got["headers"])[HEADER]) >= 0
    return got["body"], got["headers"]


def parts(body, size):
    """A body in messages of so many bytes."""
    for start in range(0, max(len(body), 1), size):
        more = start + size < len(body)
        yield {"type": "http.request", "body": body[start : start + size], "more_body": more}


def ours(app):
    return wrapped(app, policy="ssjf", **PATIENT)


DEEP = 10**6
BODIES = {
    "arrays in arrays": b"[" * DEEP,
    "closed arrays": b"[" * DEEP + b"]" * DEEP,
    "objects in objects": b'{"prompt":' * (DEEP // 10),
    "a deep message": b'{"messages":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "a long number": b'{"prompt": "a", "max_tokens": ' + b"9" * MB + b"}",
    "no numbers": b'{"prompt": "a", "max_tokens": NaN, "n": -Infinity, "best_of": 1e999}',
    "a huge count": b'{"prompt": "a", "max_tokens": ' + b"9" * 4000 + b', "n": 99999999999999999}',
    "half a letter": b'{"prompt": "\\ud800 \\udfff", "user": "\\ud800", "model": "\\udc00"}',
    "zeros": b'{"prompt": "\\u0000\\u0000"}' + b"\0" * 100,
    "invalid UTF-8": b'{"prompt": "\xff\xfe\xc0\x80"}',
    "UTF-16": '{"prompt": "a"}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + b'{"prompt": "a"}',
    "names again and again": b'{"prompt": "a"' + b', "prompt": ["a"]' * 10_000 + b"}",
    "other kinds": b'{"prompt": {"a": 1}, "model": [1], "max_tokens": {}, "n": [], "user": {}}',
    "other messages": b'{"messages": {"role": "user"}, "user": 1}',
    "a million messages": b'{"messages": [' + b"0," * DEEP + b"0]}",
    "nothing": b"",
    "compressed": gzip.compress(b'{"prompt": "a"}' * 1000),
    "a bomb": gzip.compress(b" " * 20 * MB),
}


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
@pytest.mark.parametrize("name", BODIES)
def test_a_hostile_body_passes_as_it_is(name, path):
    body = BODIES[name]
    packed = name in ("compressed", "a bomb")
    headers = [(b"content-encoding", b"gzip")] if packed else []
    found, _ = asyncio.run(passed(ours, parts(body, 2**16), headers, path))
    assert found == body


@pytest.fixture
def kept(monkeypatch):
    """How many parts and bytes of a body were kept at most."""
    most, keep = [0, 0], IncomingRequest._keep

    def noting(request, message):
        keep(request, message)
        now = len(request._read), sum(len(each["body"]) for each in request._read)
        most[:] = map(max, most, now)

    monkeypatch.setattr(IncomingRequest, "_keep", noting)
    return most


@pytest.mark.parametrize("said", [True, False])
def test_64_megabytes_pass_through_and_are_not_kept(kept, said):
    """Neither where the length is said before, nor where it shows on the way."""
    messages = ({"type": "http.request", "body": b"x" * MB, "more_body": i < 63} for i in range(64))
    headers = [(b"content-length", b"%d" % (64 * MB))] if said else []
    reason = counted("unpredicted_total", reason="too_large")
    found, _ = asyncio.run(passed(ours, messages, headers))
    assert len(found) == 64 * MB and kept == ([0, 0] if said else [5, 5 * MB])
    assert counted("unpredicted_total", reason="too_large") == reason + 1


def test_a_body_that_comes_byte_by_byte_is_kept_in_few_parts(kept):
    body = b'{"prompt": "%s"}' % (b"a" * 20_000)
    found, headers = asyncio.run(passed(ours, parts(body, 1)))
    assert found == body and kept == [MOST_PARTS, len(body)]
    assert dict(headers)[HEADER] == b"16000"  # and it was predicted


def test_ten_thousand_headers_pass():
    headers = [(b"x-%d" % i, b"a" * 50) for i in range(10_000)]
    headers += [(b"X-VLLM-Priority", b"-%d" % i) for i in range(100)]
    _, got = asyncio.run(passed(ours, parts(b'{"prompt": "9"}', 99), headers))
    assert got == [*headers[:10_000], (HEADER, b"9000"), (b"x-ssjf-predicted-tokens", b"9")]


# Clients that go


async def started(middleware, body, told=()):
    """A request under way as a task, and the queue of what its client does next."""
    queue = asyncio.Queue()
    for message in ({"type": "http.request", "body": body}, *told):
        queue.put_nowait(message)

    async def send(_):
        pass

    scope = {"type": "http", "method": "POST", "path": COMPLETIONS, "headers": []}
    return asyncio.create_task(middleware(scope, queue.get, send)), queue


@pytest.mark.parametrize("how", ["goes", "is cancelled"])
def test_a_client_that_goes_while_its_length_is_predicted(how):
    proxy, reached = FakeProxy(), []
    proxy.mode = "held"

    async def app(scope, receive, send):
        await read(receive)
        reached.append((await receive())["type"])

    middleware = wrapped(app, proxy, **PATIENT)

    async def run():
        task, queue = await started(middleware, b'{"prompt": "9"}')
        while not middleware._predictor._waiting:
            await asyncio.sleep(0)
        if how == "goes":
            queue.put_nowait({"type": "http.disconnect"})
        else:
            task.cancel()
        proxy.mode = "well"
        proxy.go_on.set()
        await asyncio.wait([task])

    asyncio.run(run())
    assert reached == (["http.disconnect"] if how == "goes" else [])
    assert nothing_left(middleware)


def test_streams_that_are_cancelled_leave_nothing():
    begun = threading.Semaphore(0)

    async def app(scope, receive, send):
        await read(receive)
        kind = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": kind})
        event = {"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True}
        await send(event)
        begun.release()
        await asyncio.sleep(3600)

    middleware = ours(app)

    async def run():
        tasks = [(await started(middleware, b'{"prompt": "%d"}' % i))[0] for i in range(50)]
        for _ in tasks:
            while not begun.acquire(blocking=False):
                await asyncio.sleep(0.001)
        assert len(middleware._prioritiser._keys.in_flight) == 50
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    asyncio.run(run())
    assert nothing_left(middleware)


# Bounds


def test_a_predictor_that_hangs_keeps_a_bounded_number_of_letters():
    go_on, worker = threading.Event(), Worker("hangs")
    try:
        first = worker.submit(lambda: go_on.wait(600))
        until(first.running)
        taken = [worker.submit(int, MB) for _ in range(100)]
        assert sum(each is not None for each in taken) == MOST_CHARACTERS // MB
        assert worker.submit(int) is not None
    finally:
        go_on.set()
    until(lambda: all(each is None or each.done() for each in taken))
    assert worker.submit(int, MOST_CHARACTERS).result(600) == 0


def test_a_call_that_would_end_its_thread_ends_neither_that_nor_who_awaits_it():
    worker = Worker("exits")

    async def awaited():
        with pytest.raises(RuntimeError, match="SystemExit"):
            await asyncio.wrap_future(worker.submit(sys.exit))

    asyncio.run(awaited())
    assert worker.submit(int).result(600) == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_was_killed_is_started_again():
    worker = Worker("dies")
    assert worker.submit(int).result(600) == 0
    worker._calls.put(None)  # no call: its thread ends with a TypeError
    until(lambda: not worker._thread.is_alive())
    assert worker.submit(int).result(600) == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_waited_for_a_thread_that_was_killed_still_counts():
    first, second, worker = threading.Event(), threading.Event(), Worker("dies")
    try:
        worker.submit(lambda: first.wait(600))
        worker._calls.put(None)
        waiting = [worker.submit(lambda: second.wait(600)), worker.submit(int, MOST_CHARACTERS)]
        first.set()
        until(lambda: not worker._thread.is_alive())
        waiting.append(worker.submit(int))  # starts another thread, which waits for ``second``
        assert worker.submit(int, 1) is None
    finally:
        second.set()
    assert [each.result(600) for each in waiting] == [True, 0, 0]


def test_the_bounds_that_the_page_states_are_those_of_the_code():
    page = (ROOT / "docs" / "serve.md").read_text()
    stated = re.findall(r"([\d,.]+(?: MiB)?) \(`([a-z_.]+)\.([A-Z_]+)`\)", page)
    assert len(stated) >= 10
    for value, module, name in stated:
        number, _, unit = value.partition(" ")
        found = getattr(import_module(f"ssjf.{module}"), name)
        assert float(number.replace(",", "")) * (2**20 if unit else 1) == found, name


def test_of_a_long_prompt_no_more_is_read_than_its_ends():
    assert len(features.clipped("word " * MB)) == features.LONGEST_CHARACTERS
