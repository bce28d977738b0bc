"""The middleware in front of servers that were started otherwise: ``ssjf route``.

A small reverse proxy. It orders by ``priority``, in the body and as X-Vllm-Priority, tells its
estimate (X-SSJF-Predicted-Tokens), and sends a request to the server with the fewest in flight;
everything else passes on unchanged. A completion whose server goes away before its answer has begun
is sent again, there or elsewhere: a client is answered once.
"""

import asyncio
import json
import socket
import time
from collections.abc import Sequence
from contextlib import suppress

import httpx
from prometheus_client import generate_latest

from ssjf.errors import InputError
from ssjf.serving import openai
from ssjf.serving.metrics import metrics
from ssjf.serving.openai import IncomingRequest, Message, Receive, Scope, Send
from ssjf.serving.priority import HEADER

METRICS = "/ssjf/metrics"  # ours; /metrics is the server's
AGAIN_SECONDS = 0.2  # between two tries
CHECK_SECONDS = 10.0  # for a server to answer at the start
MOST_BODY_BYTES = 2**26
OF_A_HOP = {b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade",
            b"proxy-authenticate", b"proxy-authorization"}  # fmt: skip
OF_A_REQUEST = OF_A_HOP | {b"host", b"content-length", b"expect"}  # headers that are made anew


class Route:
    """An ASGI application that passes requests on to ``upstreams``, base URLs.

    wait_seconds: how long a completion waits for a server to come back. transport: by default
    HTTP.
    """

    def __init__(
        self,
        upstreams: Sequence[str],
        wait_seconds: float = 60.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.in_flight = dict.fromkeys(upstreams, 0)
        self._gone_at = dict.fromkeys(upstreams, float("-inf"))
        self._wait_seconds = wait_seconds
        self._client = httpx.AsyncClient(timeout=None, transport=transport or _direct())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["path"] == METRICS:
            kind = b"text/plain; version=0.0.4; charset=utf-8"
            await _reply(send, 200, generate_latest(), kind)
        else:
            await self._pass_on(IncomingRequest(scope, receive), send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while (kind := (await receive())["type"]) != "lifespan.shutdown":
            await send({"type": f"{kind}.complete"})
        await self._client.aclose()
        await send({"type": f"{kind}.complete"})

    async def _pass_on(self, request: IncomingRequest, send: Send) -> None:
        """Answer a request, or give it up if its client does."""
        try:
            body = await request.body(MOST_BODY_BYTES, encoded=True)
            is_plain = request.header(b"content-encoding") is None
            if is_plain and openai.route_of(request.scope["path"]):
                # for servers before vLLM 0.28, and routers that keep no header
                body = openai.with_priority(body, request.header(HEADER))
        except openai.NotPredicted as why:
            if not request.disconnected:
                await _fail(send, 413, f"the body is {why}; at most {MOST_BODY_BYTES} bytes")
            return
        answer = asyncio.create_task(self._answer(request, body, send))
        given_up = asyncio.create_task(_disconnected(request))
        await asyncio.wait([answer, given_up], return_when=asyncio.FIRST_COMPLETED)
        for task in (given_up, answer):
            if not task.done():
                task.cancel()
        with suppress(asyncio.CancelledError):
            await answer

    async def _answer(self, request: IncomingRequest, body: bytes, send: Send) -> None:
        is_completion = openai.route_of(request.scope["path"]) is not None
        until, begun = time.monotonic() + self._wait_seconds, Begun(send)
        while True:
            upstream = min(self.in_flight, key=lambda url: (self._gone(url), self.in_flight[url]))
            self.in_flight[upstream] += 1
            try:
                return await self._ask(upstream, request, body, begun)
            except httpx.LocalProtocolError as error:  # the client sent what HTTP does not allow
                return await _fail(send, 400, f"the request cannot be passed on ({error})")
            except httpx.HTTPError as error:
                self._gone_at[upstream] = time.monotonic()
                if begun.is_true:
                    await begun.fail(f"the answer broke off: {error}")
                    raise  # closes the connection: the client sees that the answer is not whole
                never_sent = isinstance(error, httpx.ConnectError)
                if not (is_completion or never_sent) or time.monotonic() > until:
                    words = f"{upstream} does not answer ({type(error).__name__})"
                    return await _fail(send, 502, words)
                metrics().resent.inc()
            finally:
                self.in_flight[upstream] -= 1
            if all(map(self._gone, self.in_flight)):
                await asyncio.sleep(AGAIN_SECONDS)

    def _gone(self, upstream: str) -> bool:
        return time.monotonic() - self._gone_at[upstream] < AGAIN_SECONDS

    async def _ask(
        self, upstream: str, request: IncomingRequest, body: bytes, begun: "Begun"
    ) -> None:
        scope = request.scope
        url = httpx.URL(upstream.rstrip("/") + scope["path"], query=scope.get("query_string", b""))
        headers = [(k, v) for k, v in scope["headers"] if k.lower() not in OF_A_REQUEST]
        # Not self._client.build_request, which adds headers of its own
        passed = httpx.Request(scope["method"], url, headers=headers, content=body)
        answer = await self._client.send(passed, stream=True)
        try:
            kept = [(k.lower(), v) for k, v in answer.headers.raw if k.lower() not in OF_A_HOP]
            start = {"type": "http.response.start", "status": answer.status_code, "headers": kept}
            parts = answer.aiter_raw()
            if "content-length" in answer.headers:  # all at once: whole, or the request goes again
                whole = b"".join([part async for part in parts])
                await begun(start)
                return await begun({"type": "http.response.body", "body": whole})
            first = await anext(parts, b"")
            await begun(start)
            await begun({"type": "http.response.body", "body": first, "more_body": True})
            async for part in parts:
                await begun({"type": "http.response.body", "body": part, "more_body": True})
            await begun({"type": "http.response.body", "body": b""})
        finally:
            await answer.aclose()


class Begun:
    """Sends messages, and knows whether any was sent."""

    def __init__(self, send: Send) -> None:
        self._send, self.is_true, self._of_events = send, False, False

    async def __call__(self, message: Message) -> None:
        self.is_true = True
        if message["type"] == "http.response.start":
            kinds = [value for key, value in message["headers"] if key == b"content-type"]
            self._of_events = any(each.startswith(b"text/event-stream") for each in kinds)
        await self._send(message)

    async def fail(self, words: str) -> None:
        """Send an event that OpenAI clients raise as an error, if the answer is of events."""
        if self._of_events:
            event = b"data: " + _error(502, words) + b"\n\n"
            await self._send({"type": "http.response.body", "body": event, "more_body": True})


def _direct() -> httpx.AsyncHTTPTransport:
    """Return connections to the servers themselves, whatever $HTTP_PROXY says."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
    return httpx.AsyncHTTPTransport(limits=limits)


async def check(upstreams: Sequence[str]) -> None:
    """InputError unless all are URLs of servers that answer."""
    if not upstreams:
        raise InputError("there must be at least one --upstream URL")
    async with httpx.AsyncClient(timeout=CHECK_SECONDS, transport=_direct()) as client:
        for url in upstreams:
            try:
                answer = await client.get(url.rstrip("/") + "/health")
            except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
                raise InputError(
                    f"upstream {url} does not answer ({type(error).__name__}: {error}); give the "
                    "URL of a server that runs, as http://127.0.0.1:8000"
                ) from None
            if answer.status_code >= 500:
                raise InputError(f"upstream {url} answers GET /health with {answer.status_code}")


def listening(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address; InputError if that is taken."""
    # TCP by name: asyncio then sends at once, without Nagle's delay
    bound = socket.socket(proto=socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise InputError(f"port {port} of {host} is not to be had ({error.strerror})") from None
    return bound


async def _disconnected(request: IncomingRequest) -> None:
    while not request.disconnected:
        await request.receive()


async def _reply(send: Send, status: int, body: bytes, kind: bytes) -> None:
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _fail(send: Send, status: int, words: str) -> None:
    await _reply(send, status, _error(status, words), b"application/json")


def _error(status: int, words: str) -> bytes:
    return json.dumps({"error": {"message": f"ssjf: {words}", "code": status}}).encode()
