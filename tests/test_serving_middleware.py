"""The middleware before a real server: what it writes, what it leaves, and that it fails open."""

import asyncio
import gzip
import json
import os
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

import ssjf.serving
from serving_tools import (
    CHAT,
    COMPLETIONS,
    PATIENT,
    Engine,
    FakeProxy,
    counted,
    counting,
    echo,
    live,
    reply,
    serving,
    until,
    wrapped,
)
from ssjf.errors import InputError
from ssjf.serving.middleware import Middleware
from ssjf.serving.openai import UNHEARD
from ssjf.serving.options import ServeOptions

PURE = {"policy": "ssjf", **PATIENT}  # keys are thousandths of predicted tokens


@pytest.fixture(scope="module")
def echoes():
    """A server with patience, which orders by prediction alone."""
    with serving(wrapped(echo, max_body_mb=0.01, **PURE)) as address:
        yield address


def post(address, body, path=COMPLETIONS, **options):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(address + path, content=content, timeout=600, **options)


def key(address, path=COMPLETIONS, **members):
    return int(post(address, members, path).headers["x-priority"])


# What is written


def test_the_key_is_the_prediction(echoes):
    with (
        counting("predictions_total"),
        counting("prediction_seconds_count"),
        counting("overhead_seconds_count"),
    ):
        assert key(echoes, prompt="of 123 tokens", max_tokens=None) == 123_000


SAYS_400 = {"messages": [{"role": "user", "content": "400"}]}


@pytest.mark.parametrize(
    "path, members, tokens",
    [(COMPLETIONS, {"prompt": "400"}, 16), (COMPLETIONS, {"prompt": "400", "max_tokens": 8}, 8),
     (COMPLETIONS, {"prompt": "400", "max_tokens": None}, 400),
     (COMPLETIONS, {"prompt": "400", "max_tokens": 500}, 400),
     (COMPLETIONS, {"prompt": "400", "max_tokens": "8"}, 8),
     (COMPLETIONS, {"prompt": "4", "max_tokens": 500, "min_tokens": 90}, 90),
     (COMPLETIONS, {"prompt": "4", "max_tokens": 500, "ignore_eos": True}, 500),
     (COMPLETIONS, {"prompt": ["7", "300", "20"], "max_tokens": 999}, 300),
     (CHAT, SAYS_400, 400), (CHAT, SAYS_400 | {"max_tokens": 9}, 9),
     (CHAT, SAYS_400 | {"max_tokens": 9, "max_completion_tokens": 8}, 8),
     ("/v1/responses", {"input": "400"}, 400), ("/v1/messages", SAYS_400 | {"max_tokens": 9}, 9),
     ("/v1/responses", {"input": SAYS_400["messages"], "max_output_tokens": 6}, 6)],
)  # fmt: skip
def test_the_longest_prompt_counts_up_to_what_the_client_allows(echoes, path, members, tokens):
    assert key(echoes, path, **members) == tokens * 1000


def test_a_measurement_that_forces_lengths_by_the_limit_can_have_it_ignored():
    with serving(wrapped(echo, client_limit="ignore", **PURE)) as address:
        assert key(address, prompt="400", max_tokens=8, ignore_eos=True) == 400_000


def test_only_a_proxy_that_was_trained_on_it_reads_the_history():
    messages = [{"role": "user", "content": "7"}, {"role": "assistant", "content": "a"},
                {"role": "user", "content": "8"}]  # fmt: skip
    for history, tokens in ((False, 8), (True, 7)):  # the fake reads the first number
        with serving(wrapped(echo, history=history, **PURE)) as address:
            assert key(address, CHAT, messages=messages) == tokens * 1000


def test_with_ageing_the_key_counts_the_arrival_too():
    """Two that arrive one after the other differ by their lengths, and a little more."""
    with serving(wrapped(echo, policy="ssjf-aged:1", **PATIENT)) as address:
        keys = [key(address, prompt=str(n), max_tokens=None) for n in (100, 900, 2000)]
    assert keys[1] - keys[0] >= 800_000 and keys[2] - keys[1] >= 1_100_000
    assert keys[2] - keys[0] < 2_500_000  # it took less than 600 s


def test_the_median_of_recent_predictions_stands_in_for_a_missing_one():
    with serving(wrapped(echo, **PURE)) as address:
        assert key(address, prompt=[1, 2], max_tokens=None) == 128_000  # nothing is known yet
        for tokens in (10, 20, 90):
            key(address, prompt=str(tokens), max_tokens=None)
        assert key(address, prompt=[1, 2], max_tokens=None) == 20_000
        assert key(address, prompt=[1, 2], max_tokens=3) == 3_000


# What is left as it is


UNREADABLE = {
    "malformed_json": b'{"prompt": "a",}',
    "not_utf8": b'{"prompt": "\xff"}',
    "not_an_object": b'["prompt"]',
    "too_large": b'{"prompt": "%s"}' % (b"a" * 10_000),
}


@pytest.mark.parametrize("reason", UNREADABLE)
def test_a_body_that_cannot_be_written_to_goes_on_under_a_header(echoes, reason):
    with counting("unpredicted_total", reason=reason):
        found = post(echoes, UNREADABLE[reason])
    assert found.content == UNREADABLE[reason]
    assert int(found.headers["x-priority"]) > 0


def test_what_is_not_read_counts_as_middling_and_not_as_the_default_limit():
    with serving(wrapped(echo, max_body_mb=0.01, **PURE)) as address:
        for body in UNREADABLE.values():
            assert post(address, body).headers["x-priority"] == "128000"


@pytest.mark.parametrize(
    "reason, body, headers",
    [("too_large", [b'{"prompt": "', *[b"a" * 3000] * 5, b'"}'], {}),
     ("encoded", [gzip.compress(b'{"prompt": "a"}')], {"content-encoding": "gzip"})],
)  # fmt: skip
def test_a_body_in_parts_that_is_not_read_goes_on(echoes, reason, body, headers):
    with counting("unpredicted_total", reason=reason):
        found = httpx.post(echoes + COMPLETIONS, content=iter(body), headers=headers, timeout=600)
    assert found.content == b"".join(body)


JUMPS = [(b'{"priority" : -3 ,"prompt":"9"}', {}), (b'{"prompt":"9"}', {"X-Vllm-Priority": "-4"}),
         (b'{"prompt":"9","priority": -1}', {"x-vLLM-priority": "-1" + 19 * "0"})]  # fmt: skip


@pytest.mark.parametrize("body, headers", JUMPS)
def test_a_priority_of_the_client_does_not_count(echoes, body, headers):
    """Ours is in the header, which goes before the body."""
    with counting("predictions_total"):
        found = post(echoes, body, headers=headers)
    assert (found.content, found.headers["x-priority"]) == (body, "9000")


@pytest.mark.parametrize("reason", UNREADABLE)
def test_nor_does_it_where_nothing_is_predicted(echoes, reason):
    found = post(echoes, UNREADABLE[reason], headers={"X-Vllm-Priority": "-4"})
    assert found.content == UNREADABLE[reason] and int(found.headers["x-priority"]) > 0


def test_nor_does_it_where_we_are_at_fault(echoes, monkeypatch):
    """The priority that was given last stands in."""
    given = key(echoes, prompt="7", max_tokens=None)
    monkeypatch.setattr("ssjf.serving.priority.Keys.priority", lambda *_: 1 / 0)
    for body, headers in JUMPS:
        assert post(echoes, body, headers=headers).headers["x-priority"] == str(given)


def test_nor_does_it_on_other_routes(echoes):
    """Where vLLM hears no header the body has ours, whole; such a route's 0 would go first."""
    known = key(echoes, prompt="7", max_tokens=None)
    for path in ("/invocations", "/v1/embeddings", *UNHEARD):
        for sent in (b'{"priority":-9,"messages":[[]]} ', b"{}", b"[1]", b"{", b""):
            found = post(echoes, sent, path, headers={"X-Vllm-Priority": "-4"})
            assert found.headers["x-priority"] == str(known)
            if path in UNHEARD and sent.startswith(b"{") and len(sent) > 1:
                assert json.loads(found.content)["priority"] > 0
                assert found.headers["x-length"] == str(len(found.content))
                assert json.loads(found.content).keys() == json.loads(sent).keys() | {"priority"}
            else:
                assert found.content == sent


@pytest.mark.parametrize(
    "asked, seconds", [(0, 0), (-3, -3), (4, 4), (-11, -10), (10**30, 10), (-(10**30), -10)]
)
def test_where_it_is_respected_it_counts_as_seconds_up_to_ten(asked, seconds):
    with serving(wrapped(echo, client_priority="respect", policy="fcfs", **PATIENT)) as address:
        for given in (
            {"body": {"priority": asked}},
            {"headers": {"X-Vllm-Priority": str(asked)}, "body": {"priority": 5}},
        ):
            before = 1000 * time.monotonic()
            body = json.dumps({"prompt": "9"} | given["body"]).encode()
            with counting("predictions_total"):
                found = post(address, body, headers=given.get("headers"))
            moved = int(found.headers["x-priority"]) - 1000 * seconds
            assert found.content == body and before - 1 <= moved <= 1000 * time.monotonic() + 1


@pytest.mark.parametrize("odd", ["x", None, 1.5, True, [1], "9" * 5000])
def test_where_it_is_respected_what_is_no_number_moves_nothing(odd):
    with serving(wrapped(echo, client_priority="respect", **PURE)) as address:
        assert key(address, prompt="20000", max_tokens=None, priority=odd) == 20_000_000
        headers = {"X-Vllm-Priority": str(odd)}
        found = post(address, {"prompt": "20000", "max_tokens": None}, headers=headers)
        assert found.headers["x-priority"] == "20000000"


@pytest.mark.parametrize(
    "body", [b'{"priority":0,"prompt":"9"}', b'{"prompt":"9","priority": "x"}']
)
def test_where_it_is_trusted_it_passes_as_it_is(body):
    with serving(wrapped(echo, client_priority="trust", **PURE)) as address:
        for headers, seen in (({}, ""), ({"X-Vllm-Priority": "-4"}, "-4")):
            with counting("unpredicted_total", reason="client_priority"):
                found = post(address, body, headers=headers)
            assert found.content == body and found.headers["x-priority"] == seen
        assert key(address, prompt="9") == 9_000
        unheard = b'{"priority": -9}'
        assert post(address, unheard, UNHEARD[0]).content == unheard


def test_a_nested_priority_is_none_of_the_client(echoes):
    body = b'{"prompt":"9","extra":{"priority":1},"also":"\\"priority\\":2" }'
    found = post(echoes, body)
    assert (found.content, found.headers["x-priority"]) == (body, "9000")


@pytest.mark.parametrize("reason, prompt", [("token_ids", [1, 2]), ("no_text", None)])
def test_without_text_the_request_goes_on_under_a_priority(echoes, reason, prompt):
    with counting("unpredicted_total", reason=reason):
        found = post(echoes, {"prompt": prompt})
    assert found.json() == {"prompt": prompt} and int(found.headers["x-priority"]) > 0


async def calls(app, scope, received):
    """What an application sends when it receives these messages."""
    sent, left = [], [*received]

    async def receive():
        return left.pop(0)

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    return sent


def test_all_else_passes_untouched():
    seen = []

    async def app(*given):
        seen.append(given)

    async def run():
        found = wrapped(app)
        kinds = [
            ("http", "GET", COMPLETIONS),
            ("http", "OPTIONS", COMPLETIONS),
            ("http", "DELETE", "/v1/responses/1"),
            ("websocket", None, COMPLETIONS),
        ]
        for kind, method, path in kinds:  # fmt: skip
            given = {"type": kind, "method": method, "path": path}, object(), object()
            await found(*given)
            assert all(a is b for a, b in zip(seen[-1], given, strict=True))

    asyncio.run(run())
    assert len(seen) == 4


def test_a_client_that_goes_before_its_body_ends():
    seen = []
    messages = [{"type": "http.request", "body": b'{"pro', "more_body": True},
                {"type": "http.disconnect"}]  # fmt: skip

    async def app(scope, receive, send):
        seen.extend([await receive(), await receive()])

    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": []}
    with counting("unpredicted_total", reason="disconnected"):
        asyncio.run(calls(wrapped(app), scope, messages))
    assert seen == messages


def test_a_mistake_of_ours_costs_no_answer(monkeypatch):
    with serving(wrapped(echo, **PURE)) as address:
        monkeypatch.setattr("ssjf.serving.priority.Keys.priority", lambda *_: 1 / 0)
        body = b'{"prompt": "a"}'
        with counting("unpredicted_total", reason="internal_error"):
            assert post(address, body).content == body


# A predictor in trouble


@pytest.fixture
def troubled():
    """A proxy, and a server that asks it."""
    proxy = FakeProxy()
    with serving(wrapped(echo, proxy, **PURE)) as address:
        yield proxy, address
        proxy.go_on.set()


@pytest.mark.parametrize("mode", ["fails", "no lengths", "exits"])
def test_a_predictor_that_fails_and_is_well_again(troubled, mode):
    proxy, address = troubled
    assert key(address, prompt="9") == 9_000
    proxy.mode = mode
    with (
        counting("unpredicted_total", reason="predictor_error"),
        counting("predictor_failures_total"),
    ):
        assert key(address, prompt="7") == 9_000  # the median of what was predicted
    proxy.mode = "well"
    assert key(address, prompt="7") == 7_000


def test_a_predictor_that_fails_on_and_on_is_told_once(troubled, caplog):
    proxy, address = troubled
    proxy.mode = "fails"
    with counting("predictor_failures_total", by=5):
        for _ in range(5):
            key(address, prompt="secret 7")
    assert caplog.text.count("RuntimeError") == 1 and "secret" not in caplog.text


def test_a_missed_deadline_holds_no_request_up():
    """The request is answered while the proxy still thinks about it."""
    proxy = FakeProxy()
    with serving(wrapped(echo, proxy, policy="ssjf", deadline_ms=5)) as address:
        proxy.mode = "held"
        with counting("unpredicted_total", reason="deadline"):
            assert key(address, prompt="7", max_tokens=None) == 128_000
        assert proxy.calls == 0
        proxy.mode = "well"
        proxy.go_on.set()
        until(lambda: key(address, prompt="7") == 7_000)


# Responses


def test_a_stream_passes_chunk_by_chunk():
    """Each part is sent only once the one before has reached the client."""
    reached, parts = threading.Semaphore(0), [b"data: %d\n\n" % i for i in range(5)]

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            return await live(receive, send)
        await receive()
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
            assert await asyncio.to_thread(reached.acquire, timeout=600)
        await send({"type": "http.response.body", "body": b"end"})

    found = []
    with (
        serving(wrapped(app, **PURE)) as address,
        httpx.stream("POST", address + COMPLETIONS, json={"prompt": "a"}, timeout=600) as response,
    ):
        for part in response.iter_raw():
            found.append(part)
            reached.release()
    assert b"".join(found) == b"".join(parts) + b"end" and found[: len(parts)] == parts


@pytest.mark.parametrize("status, body", [(500, b"no"), (200, b""), (200, b"\xff{"), (429, b"{}")])
def test_a_response_is_not_changed(status, body):
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            return await live(receive, send)
        await reply(send, body, status, b"text/odd", [(b"x-own", b"1")])

    with serving(wrapped(app, **PURE)) as address:
        found = post(address, {"prompt": "a"})
    assert (found.status_code, found.content) == (status, body)
    assert found.headers["x-own"] == "1" and found.headers["content-type"] == "text/odd"


LENGTHS = [400, 100, 300, 700, 200, 900, 500, 600, 50, 800]


def served(**options):
    """The order in which an engine of one slot serves requests that wait, and how many overtook."""
    engine = Engine(waits_for=len(LENGTHS))
    before = counted("requests_overtaking_total")
    with serving(wrapped(engine, **PATIENT, **options)) as address:
        threads = []
        for i, tokens in enumerate(LENGTHS):
            body = {"prompt": str(tokens), "max_tokens": None}
            threads.append(threading.Thread(target=post, args=(address, body)))
            threads[-1].start()
            until(lambda i=i: engine.arrived == i + 1)
        for thread in threads:
            thread.join()
    return [int(each) for each in engine.served], counted("requests_overtaking_total") - before


@pytest.mark.parametrize(
    "name, expected", [("ssjf", sorted), ("headstart:100000", sorted), ("fcfs", list)]
)
def test_an_engine_that_takes_the_smallest_priority_serves_in_the_order_of_the_policy(
    name, expected
):
    order, overtaking = served(policy=name)
    assert order == expected(LENGTHS)
    left, overtook = [*LENGTHS], 0
    for tokens in order:
        overtook += left[0] != tokens
        left.remove(tokens)
    assert overtaking == overtook and (overtook > 0) == (name != "fcfs")


# Start and end


def test_what_cannot_be_used_stops_the_start_with_one_sentence(monkeypatch):
    monkeypatch.setenv("SSJF_SERVE_PROXY", "nowhere")
    found = Middleware(echo)
    sent = asyncio.run(calls(found, {"type": "lifespan"}, [{"type": "lifespan.startup"}]))
    (message,) = sent
    assert message["type"] == "lifespan.startup.failed"
    assert message["message"].startswith("ssjf: nowhere is no proxy")
    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": []}
    with pytest.raises(InputError, match="nowhere is no proxy"):
        asyncio.run(calls(found, scope, []))


SERVER = """
import sys, uvicorn
sys.path.insert(0, {tests!r})
from serving_tools import echo
from ssjf.serving import Middleware
uvicorn.run(Middleware(echo), port={port}, log_level="error")
"""


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_a_real_server_does_not_start_with_a_proxy_that_is_none():
    code = SERVER.format(tests=os.path.dirname(__file__), port=free_port())
    environ = os.environ | {"SSJF_SERVE_PROXY": "nowhere"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=600
    )
    assert done.returncode != 0
    assert "nowhere is no proxy" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_shipped_proxy_orders_by_itself():
    """Nothing is given: options of the environment, the light proxy that comes with the package."""
    with serving(Middleware(echo, ServeOptions(**PURE))) as address:
        long = key(address, prompt="Write a long essay about the sea.", max_tokens=None)
        short = key(address, prompt="Name one colour.", max_tokens=None)
    assert 0 < short < long


def test_serving_needs_neither_a_web_framework_nor_vllm():
    code = "import sys, ssjf.serving.middleware; print(*{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"starlette", "fastapi", "vllm", "uvicorn", "torch", "pandas", "numba"}
    assert not heavy & set(done.stdout.split())


def test_names_of_the_package():
    assert ssjf.serving.Middleware is Middleware
    with pytest.raises(AttributeError, match="no attribute 'Server'"):
        ssjf.serving.Server  # noqa: B018
