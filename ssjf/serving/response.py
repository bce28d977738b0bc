"""Read output lengths from responses as the server sends them."""

import json
import re
from collections.abc import Callable

from ssjf.serving import openai
from ssjf.serving.openai import IncomingRequest, Message, Send

TAIL_BYTES = 2**18  # only the end of a longer body is kept
LINE_BYTES = 2**18  # a longer event is not read
_CHAT_TOKENS = rb'"usage"\s*:\s*\{[^{}]*?"completion_tokens"\s*:\s*(\d+)'
_OTHER_TOKENS = rb'"output_tokens"\s*:\s*(\d+)'
ENDINGS = {
    openai.CHAT: (rb'"finish_reason"\s*:\s*"(\w+)"', _CHAT_TOKENS),
    openai.COMPLETIONS: (rb'"finish_reason"\s*:\s*"(\w+)"', _CHAT_TOKENS),
    openai.RESPONSES: (rb'"status"\s*:\s*"(\w+)"', _OTHER_TOKENS),
    openai.MESSAGES: (rb'"stop_reason"\s*:\s*"(\w+)"', _OTHER_TOKENS),
}
"""Patterns of a response's finish reason and number of tokens, by route."""
STOPPED = ("stop", "completed", "end_turn", "stop_sequence")
CUT_OFF = ("length", "incomplete", "max_tokens")
_GENERATED = ("content", "reasoning", "reasoning_content", "tool_calls")


class NotLearnable(Exception):
    """The reason why nothing is learned from a response: one word, a label of metrics."""


class Response:
    """A body of one JSON object, at whose end are finish reason and usage."""

    def __init__(self, route: str = openai.COMPLETIONS) -> None:
        self._patterns = ENDINGS[route]
        self._tail = b""

    def add(self, data: bytes) -> None:
        """Take the next bytes of the body."""
        self._tail = (self._tail + data)[-TAIL_BYTES:]

    def _read(self) -> tuple[str, int]:
        """Return finish reason and length; "" and 0 if they are missing."""
        return self._ending(self._tail)

    def _ending(self, data: bytes) -> tuple[str, int]:
        """Return the last finish reason and usage in some JSON; "" and 0 if they are missing.

        A match is never part of an answer's text, whose quotes are escaped.
        """
        finish, tokens = (re.findall(pattern, data) for pattern in self._patterns)
        return b"".join(finish[-1:]).decode(), int([0, *tokens][-1])

    def used_tokens(self) -> int:
        """Return the tokens generated, however it ended; 0 if the body does not say."""
        return self._read()[1]

    def output_tokens(self) -> tuple[int, bool]:
        """Return the answer's length, and whether a limit ended it; NotLearnable unless that or
        the model did."""
        finish, tokens = self._read()
        if finish not in (*STOPPED, *CUT_OFF, ""):
            raise NotLearnable("other_finish")
        if not finish or tokens < 1:
            raise NotLearnable("unreadable")
        return tokens, finish in CUT_OFF


class SseResponse(Response):
    """A body of server-sent events: its length is the last usage, else one token per event."""

    def __init__(self, route: str = openai.COMPLETIONS) -> None:
        super().__init__(route)
        self._line, self._finish = b"", ""
        self._events, self._usage = 0, 0

    def add(self, data: bytes) -> None:
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:") and len(line) <= LINE_BYTES:
                self._event(line[5:])
        if len(self._line) > LINE_BYTES:
            self._line = self._line[: LINE_BYTES + 1]

    def _event(self, data: bytes) -> None:
        finish, tokens = self._ending(data)
        self._finish, self._usage = finish or self._finish, tokens or self._usage
        try:
            choice = json.loads(data)["choices"][0]
            delta = choice.get("delta") or {}
            self._events += bool(choice.get("text") or any(delta.get(key) for key in _GENERATED))
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            pass  # the usage, the end, or none of vLLM's

    def _read(self) -> tuple[str, int]:
        return self._finish, self._usage or self._events


class ResponseObserver:
    """Sends and reads a response; ``begun`` is called before its first bytes."""

    def __init__(self, request: IncomingRequest, send: Send, begun: Callable[[], None]) -> None:
        self._request, self._send, self._begun = request, send, begun
        self._response: Response | None = None
        self._reason = "unfinished"

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        try:
            self._read(message)
        except NotLearnable as why:
            self._response, self._reason = None, str(why)
        except Exception:  # not a message of HTTP
            self._response, self._reason = None, "unreadable"
        await self._send(message)

    def _read(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._response = _reader(message, self._request.route)
        elif message["type"] == "http.response.body":
            data, more = message.get("body", b""), message.get("more_body", False)
            if data or not more:
                self._begun()
            if self._response is not None:
                self._response.add(data)
                if not more:
                    self._reason = "disconnected" if self._request.disconnected else ""

    def response(self) -> Response:
        """Return the whole response; NotLearnable if it was not sent to its end."""
        if self._response is None or self._reason:
            raise NotLearnable(self._reason)
        return self._response

    def used_tokens(self) -> int:
        """Return the tokens generated in a response that was not sent to its end."""
        return 0 if self._response is None else self._response.used_tokens()


def _reader(message: Message, route: str) -> Response:
    """Return the reader of the body that follows this ``http.response.start``."""
    headers = {key.lower(): value for key, value in message.get("headers", ())}
    if message["status"] != 200:
        raise NotLearnable("status")
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise NotLearnable("encoded")
    streamed = headers.get(b"content-type", b"").startswith(b"text/event-stream")
    return SseResponse(route) if streamed else Response(route)
