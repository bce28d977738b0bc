"""One replica: vLLM as a child of a Ray actor, which passes requests and answers on.

Neither outlives the other: if vLLM ends, so does the actor, and Ray Serve starts another.
"""

import os
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import httpx

from ssjf.errors import InputError
from ssjf.harness.interpreter import required, vllm_version
from ssjf.harness.server import HOST, LiveServer

STARTING_SECONDS = 3600.0  # a large model may have to be downloaded
HEALTH_SECONDS = 60.0
Headers = Sequence[tuple[bytes, bytes]]


class Replica:
    """A vLLM server of a node's own vLLM; InputError if that is not of ``version`` or does not
    start."""

    def __init__(
        self, model: str, vllm_options: Sequence[str], version: str, variables: Mapping[str, str]
    ) -> None:
        from ray import serve

        self.name = serve.get_replica_context().replica_id.unique_id
        self.version = check_version(version)
        # Without the limit of threads that Ray sets for its actor
        own = {name: text for name, text in os.environ.items() if name != "OMP_NUM_THREADS"}
        self._server = LiveServer(model, vllm_options, variables=own | dict(variables))
        self._ending = False
        self._server.launch()
        self._server.wait(STARTING_SECONDS)
        threading.Thread(target=self._end_with_vllm, daemon=True).start()
        limits = httpx.Limits(max_connections=None)
        address = f"http://{HOST}:{self._server.port}"
        self._client = httpx.AsyncClient(
            base_url=address, timeout=None, limits=limits, trust_env=False
        )

    async def ask(
        self, method: str, target: bytes, headers: Headers, body: bytes
    ) -> AsyncIterator[Any]:
        """Yield the replica's name at once; status and headers of vLLM's answer; its body's parts.

        target: path and query.
        """
        yield self.name
        try:
            url = self._client.base_url.copy_with(raw_path=target)
            request = httpx.Request(method, url, headers=[*headers], content=body)
            answer = await self._client.send(request, stream=True)
            try:
                yield answer.status_code, answer.headers.raw
                async for part in answer.aiter_raw():
                    yield part
            finally:
                await answer.aclose()
        except httpx.HTTPError as error:
            raise type(error)(str(error)) from None  # Ray cannot send its request

    async def metrics(self) -> tuple[str, str, str]:
        """Return name, vLLM's version, and vLLM's metrics as Prometheus' text."""
        return self.name, self.version, (await self._client.get("/metrics")).text

    async def check_health(self) -> None:
        """Raise if vLLM does not answer: Ray Serve then replaces the replica."""
        (await self._client.get("/health", timeout=HEALTH_SECONDS)).raise_for_status()

    def _end_with_vllm(self) -> None:
        self._server.ended()
        if not self._ending:
            self._server.close()  # the rest of its processes
            os._exit(1)

    def __del__(self) -> None:
        self._ending = True
        if hasattr(self, "_server"):
            self._server.close()


def check_version(expected: str) -> str:
    """Return the version of this node's vLLM; InputError unless it is the one expected."""
    found = required(vllm_version())
    if found != expected:
        raise InputError(
            f"node {os.uname().nodename} has vLLM {found} and the others have {expected}; replicas "
            "must be of one version"
        )
    return found
