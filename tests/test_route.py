"""`ssjf route` before servers started otherwise: what it adds, and what it never loses."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from commands import refused
from serving_tools import COMPLETIONS, PATIENT, live, read, reply, serving, until, wrapped
from ssjf.serving.openai import with_priority
from ssjf.serving.replicas.route import METRICS, Route, check

SAYS = {"messages": [{"role": "user", "content": "70"}], "max_tokens": 90}
ROUTES = {
    "/v1/completions": {"prompt": "70", "max_tokens": 90},
    "/v1/chat/completions": SAYS,
    "/v1/responses": {"input": "70"},
    "/v1/messages": SAYS,
}
STUB = """
import asyncio, json, sys, uvicorn

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await asyncio.sleep(0.002)
    said = json.loads(body)["prompt"] if body else ""
    choice = {"text": said, "finish_reason": "stop"}
    told = json.dumps({"choices": [choice], "usage": {"completion_tokens": 5}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(told))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": told})

uvicorn.run(app, port=int(sys.argv[1]), log_level="error", lifespan="off")
"""


async def mirror(scope, receive, send):
    """Sends back what it was sent, in JSON; /slow in three parts, /broken not to its end."""
    if scope["type"] == "lifespan":
        return await live(receive, send)
    body = await read(receive)
    headers = {key.decode(): value.decode() for key, value in scope["headers"]}
    told = {"method": scope["method"], "path": scope["path"], "body": body.decode("latin-1"),
            "query": scope["query_string"].decode(), "headers": headers}  # fmt: skip
    if scope["path"] in ("/slow", "/broken"):
        kind = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": kind})
        for part in (b"data: a\n\n", b"data: b\n\n"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        if scope["path"] == "/broken":
            raise RuntimeError("the end")
        return await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
    status = 418 if scope["path"] == "/teapot" else 200
    await reply(
        send, json.dumps(told).encode(), status, headers=[(b"x-own", b"1"), (b"x-own", b"2")]
    )


@contextlib.contextmanager
def routed(app, upstreams=1, **options):
    """A route before so many servers of an application."""
    with contextlib.ExitStack() as stack:
        urls = [stack.enter_context(serving(app)) for _ in range(upstreams)]
        chosen = {"policy": "ssjf", **PATIENT} | options
        yield stack.enter_context(serving(wrapped(Route(urls, wait_seconds=600), **chosen)))


@pytest.fixture(scope="module")
def address():
    with routed(mirror) as found:
        yield found


@pytest.mark.parametrize("path", ROUTES)
def test_a_completion_gets_its_priority_twice_and_its_estimate(address, path):
    found = httpx.post(address + path, json=ROUTES[path], timeout=600).json()
    assert found["headers"]["x-vllm-priority"] == "70000"
    assert found["headers"]["x-ssjf-predicted-tokens"] == "70"
    assert json.loads(found["body"]) == ROUTES[path] | {"priority": 70_000}


def test_what_cannot_be_predicted_has_no_estimate_not_even_its_clients(address):
    headers = {"x-ssjf-predicted-tokens": "1"}
    body = {"prompt": [1, 2], "max_tokens": 9}
    found = httpx.post(address + COMPLETIONS, json=body, headers=headers, timeout=600).json()
    assert "x-ssjf-predicted-tokens" not in found["headers"]
    assert json.loads(found["body"])["priority"] == 9000
    for more in ({"content": b"{"}, {"json": {"prompt": [7], "priority": 3}}):  # unread, or no text
        found = httpx.post(address + COMPLETIONS, headers=headers, timeout=600, **more).json()
        assert "x-ssjf-predicted-tokens" not in found["headers"]


@pytest.mark.parametrize(
    ("body", "written"),
    [(b'{"a": 1}', b'{"a": 1,"priority":5}'), (b' { } \n', b' {"priority":5}'),
     (b'{"priority": 1}', b'{"priority": 1,"priority":5}'), (b"[1]", b"[1]"), (b"", b""),
     (b'{"a": 1', b'{"a": 1')],
)  # fmt: skip
def test_a_priority_is_written_as_the_last_member_and_all_else_stays(body, written):
    assert with_priority(body, b"5") == written
    assert with_priority(body, None) == body
    if written.endswith(b"5}"):
        assert json.loads(written)["priority"] == 5


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
def test_all_else_passes_as_it_is(address, method):
    """Its method, path, query, headers and bytes; the status and all headers of the answer."""
    body = b"" if method == "GET" else b'{"prompt": "\xff'
    with httpx.Client(timeout=600) as client:
        asked = client.build_request(method, f"{address}/teapot?a=%20b&a=2", content=body,
                                     headers={"x-mine": "1", "authorization": "me"})  # fmt: skip
        del asked.headers["accept-encoding"], asked.headers["user-agent"]
        answer = client.send(asked)
    found = answer.json()
    assert answer.status_code == 418 and answer.headers.get_list("x-own") == ["1", "2"]
    assert (found["method"], found["path"], found["query"]) == (method, "/teapot", "a=%20b&a=2")
    assert found["body"].encode("latin-1") == body
    assert found["headers"]["x-mine"] == "1" and found["headers"]["authorization"] == "me"
    assert not {"accept-encoding", "user-agent", "x-vllm-priority"} & found["headers"].keys()


def test_a_stream_comes_part_by_part_and_one_that_breaks_is_not_made_whole(address):
    with httpx.stream("GET", f"{address}/slow", timeout=600) as answer:
        assert "".join(answer.iter_text()) == "data: a\n\ndata: b\n\ndata: [DONE]\n\n"
    with (
        pytest.raises(httpx.RemoteProtocolError),
        httpx.stream("GET", f"{address}/broken", timeout=600) as answer,
    ):
        assert answer.status_code == 200
        answer.read()


def test_its_own_metrics_have_a_path_of_their_own(address):
    assert "ssjf_predictions_total" in httpx.get(address + METRICS, timeout=600).text
    assert httpx.get(f"{address}/metrics", timeout=600).json()["path"] == "/metrics"


def test_a_client_that_gives_up_is_given_up():
    gone, there = threading.Event(), threading.Event()

    async def patient(scope, receive, send):
        if scope["type"] == "lifespan":
            return await live(receive, send)
        await read(receive)
        there.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()

    with routed(patient) as address:
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as client:
            client.sendall(
                b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"
            )
            assert there.wait(600)
        assert gone.wait(600)


def test_the_server_with_the_fewest_under_way_is_next():
    holding, free = threading.Event(), []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            return await live(receive, send)
        asked = json.loads(await read(receive))["prompt"]
        port = scope["server"][1]
        if asked == "hold":
            free.append(port)
            holding.set()
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        await reply(send, str(port).encode())

    with (
        routed(app, upstreams=2) as address,
        httpx.Client(base_url=address, timeout=600) as client,
        socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as held,
    ):
        head = b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 18\r\n\r\n"
        held.sendall(head + b'{"prompt": "hold"}')
        assert holding.wait(600)
        ports = {client.post(COMPLETIONS, json={"prompt": "7"}).text for _ in range(5)}
    assert len(ports) == 1 and ports != {str(free[0])}


def stub(port):
    """A real server in a process of its own, that answers."""
    process = subprocess.Popen([sys.executable, "-c", STUB, str(port)])
    until(lambda: reachable(port))
    return process


def reachable(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


REQUESTS = int(os.environ.get("SSJF_TEST_REQUESTS", 1500))


@pytest.mark.slow
@pytest.mark.parametrize("upstreams", [1, 2])
def test_a_server_that_is_killed_and_comes_back_loses_no_request(upstreams):
    """Each is answered once, with its own answer, while a server is killed and started again."""
    ports = [free_port() for _ in range(upstreams)]
    processes = [stub(port) for port in ports]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    answered, done = [], threading.Event()

    def trouble():
        while not done.wait(1.0):
            os.kill(processes[0].pid, signal.SIGKILL)
            processes[0].wait(600)
            done.wait(0.5)
            processes[0] = stub(ports[0])

    try:
        with serving(wrapped(Route(urls, wait_seconds=600), policy="ssjf", **PATIENT)) as address:
            troubles = threading.Thread(target=trouble)
            troubles.start()
            with httpx.Client(base_url=address, timeout=600) as client:

                def ask(i):
                    found = client.post(COMPLETIONS, json={"prompt": f"number {i}"})
                    answered.append((i, found.status_code, found.json()["choices"][0]["text"]))

                with ThreadPoolExecutor(16) as threads:
                    list(threads.map(ask, range(REQUESTS)))
            done.set()
            troubles.join(600)
    finally:
        for each in processes:
            each.kill()
            each.wait(600)
    assert sorted(answered) == [(i, 200, f"number {i}") for i in range(REQUESTS)]


def test_who_never_comes_back_is_one_error():
    url = f"http://127.0.0.1:{free_port()}"
    with serving(wrapped(Route([url], wait_seconds=0), policy="ssjf", **PATIENT)) as address:
        for found in (httpx.post(address + COMPLETIONS, json={"prompt": "7"}, timeout=600),
                      httpx.get(f"{address}/v1/models", timeout=600)):  # fmt: skip
            assert found.status_code == 502
            assert found.json()["error"]["message"] == f"ssjf: {url} does not answer (ConnectError)"


def test_a_forward_proxy_in_the_environment_does_not_come_between(monkeypatch):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    with serving(mirror) as server:
        asyncio.run(check([server]))
        with serving(wrapped(Route([server], wait_seconds=0), **PATIENT)) as address:
            found = httpx.get(f"{address}/teapot", timeout=600, trust_env=False)
    assert found.status_code == 418


def test_a_body_beyond_all_bounds_is_refused(address, monkeypatch):
    monkeypatch.setattr("ssjf.serving.replicas.route.MOST_BODY_BYTES", 1000)
    found = httpx.post(f"{address}/v1/embeddings", content=b"a" * 2000, timeout=600)
    assert found.status_code == 413 and "at most 1000 bytes" in found.text


def test_bad_input_is_one_sentence_and_nothing_is_left_running():
    assert "at least one --upstream URL" in refused("route")
    nowhere = f"http://127.0.0.1:{free_port()}"
    assert f"upstream {nowhere} does not answer (ConnectError" in refused(
        "route", "--upstream", nowhere
    )

    async def ill(scope, receive, send):
        if scope["type"] == "lifespan":
            return await live(receive, send)
        await reply(send, b"", 500)

    with serving(ill) as sick, serving(mirror) as well:
        assert "answers GET /health with 500" in refused(
            "route", "--upstream", well, "--upstream", sick
        )
        port = well.rpartition(":")[2]
        assert f"port {port} of 127.0.0.1 is not to be had" in refused(
            "route", "--upstream", well, "--port", port
        )
    with socket.create_server(("127.0.0.1", 0)) as mute:
        threading.Thread(target=say_nonsense, args=(mute,), daemon=True).start()
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        assert f"upstream {url} does not answer (RemoteProtocolError" in refused(
            "route", "--upstream", url
        )


def say_nonsense(server):
    with contextlib.suppress(OSError):
        connection, _ = server.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"SSH-2.0-none\r\n")
