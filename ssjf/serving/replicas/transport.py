"""Ray Serve as what httpx sends by: to ``Route``, all replicas are one server."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import httpx
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

ADDRESS = "http://replicas"
NAME = "x-ssjf-replica"  # header: who answered
NOT_SUMMED = ("_created", "_info", "_perc", "_start_time_seconds")


class Replicas(httpx.AsyncBaseTransport):
    """Asks the replica that the handle's router chooses.

    wait_seconds: how long for one that takes the request.
    """

    def __init__(self, handle: Any, wait_seconds: float) -> None:
        self._handle, self._asking = handle, handle.options(stream=True).ask
        self._wait_seconds = wait_seconds

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The answer, when it has begun; httpx's errors where there is none."""
        body = await request.aread()
        target = request.url.raw_path
        with _as_httpx():
            if request.url.path == "/metrics":
                kind, text = {"content-type": "text/plain; version=0.0.4"}, await self._metrics()
                return httpx.Response(200, headers=kind, stream=httpx.ByteStream(text))
            answer = self._asking.remote(request.method, target, request.headers.raw, body)
            try:
                name = await asyncio.wait_for(anext(answer), self._wait_seconds)
                status, headers = await anext(answer)
            except TimeoutError:
                answer.cancel()
                raise httpx.ConnectError("no replica is up") from None
            except BaseException:
                answer.cancel()
                raise
        told = [*headers, (NAME.encode(), name.encode())]
        return httpx.Response(status, headers=told, stream=Parts(answer))

    async def _metrics(self) -> bytes:
        """Of all replicas and the ingress: sums, and which replicas there are."""
        from prometheus_client import generate_latest

        told = await self._handle.broadcast("metrics").results_async(return_exceptions=True)
        found = [each for each in told if not isinstance(each, BaseException)]
        texts = [text for *_, text in found]
        names = [f'ssjf_replica{{name="{name}",vllm="{version}"}} 1' for name, version, _ in found]
        which = ["# HELP ssjf_replica 1 for each.", "# TYPE ssjf_replica gauge", *names, ""]
        return summed([*texts, generate_latest().decode(), "\n".join(which)])


class Parts(httpx.AsyncByteStream):
    """The body of an answer as it comes; closed before its end, it is given up."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx():
            async for part in self._answer:
                yield part

    async def aclose(self) -> None:
        self._answer.cancel()


@contextmanager
def _as_httpx() -> Iterator[None]:
    """What befalls a replica as what befalls a connection."""
    try:
        yield
    except (RayError, RayServeException, StopAsyncIteration) as error:
        cause = getattr(error, "cause", None)
        for kind in (httpx.LocalProtocolError, httpx.ConnectError):  # the client's fault; not sent
            if isinstance(cause, kind):
                raise kind(str(cause)) from None
        raise httpx.ReadError(f"the replica is gone ({type(error).__name__})") from None


def summed(texts: Iterable[str]) -> bytes:
    """Prometheus' texts as one: of the same samples the sums; of shares and times the largest."""
    from prometheus_client import generate_latest
    from prometheus_client.parser import text_string_to_metric_families as families_of

    families: dict[str, Any] = {}
    totals: dict[str, dict[Any, Any]] = {}
    for text in texts:
        for family in families_of(text):
            families.setdefault(family.name, family)
            total = totals.setdefault(family.name, {})
            for each in family.samples:
                key = (each.name, *sorted(each.labels.items()))
                before = total[key].value if key in total else 0.0
                largest = max(before, each.value)
                value = largest if each.name.endswith(NOT_SUMMED) else before + each.value
                total[key] = each._replace(value=value)
    for name, total in totals.items():
        families[name].samples = [*total.values()]
    registry: Any = SimpleNamespace(collect=families.values)
    return generate_latest(registry)
