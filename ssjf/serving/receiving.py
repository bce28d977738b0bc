"""A request's body, read before the application reads it, and handed on to it."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ssjf.serving.bodies import Unpredicted

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

PRIORITY_HEADER = b"x-vllm-priority"  # from vLLM 0.28 on it goes before the body's member


class Incoming:
    """One request: its headers, what of its body has been read, and whether its client has gone.

    ``scope`` is what the application gets; a body or a priority that is set changes its headers.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope, self._receive = scope, receive
        self._read: list[Message] = []
        self.gone = False

    async def body(self, most_bytes: int) -> bytes:
        """The whole body; Unpredicted if it is larger or is not sent to its end."""
        length = self.header(b"content-length") or b""
        if length.isdigit() and int(length) > most_bytes:
            raise Unpredicted("too_large")
        size, more = 0, True
        while more:
            message = await self._next()
            self._read.append(message)
            if message["type"] != "http.request":
                raise Unpredicted("disconnected")
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
            if size > most_bytes:
                raise Unpredicted("too_large")
        if self.header(b"content-encoding") not in (None, b"identity"):
            raise Unpredicted("encoded")
        return b"".join(message.get("body", b"") for message in self._read)

    async def receive(self) -> Message:
        """What the application receives: what was read as it came, then the rest."""
        return self._read.pop(0) if self._read else await self._next()

    async def _next(self) -> Message:
        message = await self._receive()
        self.gone = self.gone or message["type"] == "http.disconnect"
        return message

    def header(self, name: bytes) -> bytes | None:
        """The value of a header, or None."""
        return next((value for key, value in self.scope["headers"] if key.lower() == name), None)

    def set_body(self, body: bytes) -> None:
        """Hand this body on, under its own length."""
        self._read = [{"type": "http.request", "body": body, "more_body": False}]
        if self.header(b"content-length") is not None:
            self.set_header(b"content-length", str(len(body)).encode())

    def set_header(self, name: bytes, value: bytes) -> None:
        """Hand this header on, in the place of one of its name or after all others."""
        headers = [(k, value if k.lower() == name else v) for k, v in self.scope["headers"]]
        if self.header(name) is None:
            headers.append((name, value))
        self.scope = {**self.scope, "headers": headers}
