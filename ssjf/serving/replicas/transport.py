"""Ray Serve as httpx's transport: for ``Route``, all replicas are one server."""

import asyncio
import operator
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import httpx
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families as families_of
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

ADDRESS = "http://replicas"
NAME = "x-ssjf-replica"  # header: the replica that answered
NOT_SUMMED = ("_created", "_info", "_perc", "_start_time_seconds")


class Replicas(httpx.AsyncBaseTransport):
    """Asks the replica that the handle's router chooses, within ``wait_seconds``."""

    def __init__(self, handle: Any, wait_seconds: float) -> None:
        self._handle, self._asking = handle, handle.options(stream=True).ask
        self._wait_seconds = wait_seconds

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return an answer that has begun; raise httpx's errors if there is none."""
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
        named = [*headers, (NAME.encode(), name.encode())]
        return httpx.Response(status, headers=named, stream=Parts(answer))

    async def _metrics(self) -> bytes:
        """Return the sums over all replicas and the ingress, and the names of the replicas."""
        results = await self._handle.broadcast("metrics").results_async(return_exceptions=True)
        found = [result for result in results if not isinstance(result, BaseException)]
        texts = [text for *_, text in found]
        names = [f'ssjf_replica{{name="{name}",vllm="{version}"}} 1' for name, version, _ in found]
        replicas = ["# HELP ssjf_replica 1 for each.", "# TYPE ssjf_replica gauge", *names, ""]
        return summed([*texts, generate_latest().decode(), "\n".join(replicas)])


class Parts(httpx.AsyncByteStream):
    """The body of an answer as it comes; closing it early cancels the request."""

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
    """Raise a replica's failure as httpx's failure of a connection."""
    try:
        yield
    except (RayError, RayServeException, StopAsyncIteration) as error:
        cause = getattr(error, "cause", None)
        for kind in (httpx.LocalProtocolError, httpx.ConnectError):  # a client's mistake; not sent
            if isinstance(cause, kind):
                raise kind(str(cause)) from None
        raise httpx.ReadError(f"the replica is gone ({type(error).__name__})") from None


def summed(texts: Iterable[str]) -> bytes:
    """Merge Prometheus' texts: sums of the same samples, the largest of shares and times."""
    families: dict[str, Any] = {}
    totals: dict[str, dict[Any, Any]] = {}
    for text in texts:
        for family in families_of(text):
            families.setdefault(family.name, family)
            total = totals.setdefault(family.name, {})
            for sample in family.samples:
                key = (sample.name, *sorted(sample.labels.items()))
                before = total[key].value if key in total else 0.0
                merged = max if sample.name.endswith(NOT_SUMMED) else operator.add
                total[key] = sample._replace(value=merged(before, sample.value))
    for name, total in totals.items():
        families[name].samples = [*total.values()]
    registry: Any = SimpleNamespace(collect=families.values)
    return generate_latest(registry)
