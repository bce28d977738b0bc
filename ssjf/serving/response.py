"""How long an answer became: read in passing from what the server sends, which is not changed."""

import json
import re
from typing import Any

from ssjf.serving.receiving import Message

TAIL_BYTES = 2**18  # of a longer body only the end is kept: there stands its usage
LINE_BYTES = 2**18  # a longer event is not read
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"(\w+)"')
_TOKENS = re.compile(rb'"usage"\s*:\s*\{[^{}]*?"completion_tokens"\s*:\s*(\d+)')
_SAYS = ("content", "reasoning", "reasoning_content", "tool_calls")


class Untaught(Exception):
    """Why an answer teaches nothing, in one word that metrics count by."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Whole:
    """A body that comes as one JSON object."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._bytes, self._cut = 0, False

    def add(self, data: bytes) -> None:
        """The next bytes of the body."""
        self._parts.append(data)
        self._bytes += len(data)
        if self._bytes > 2 * TAIL_BYTES:
            tail = b"".join(self._parts)[-TAIL_BYTES:]
            self._parts, self._bytes, self._cut = [tail], len(tail), True

    def length(self) -> int:
        """The tokens of the answer; Untaught with the reason why they teach nothing."""
        body = b"".join(self._parts)
        if self._cut:
            # Quotes within an answer are escaped: what is found is no part of its text.
            finish, tokens = _FINISH.findall(body), _TOKENS.findall(body)
            return _taught(
                finish[-1].decode() if finish else None, int(tokens[-1]) if tokens else 0
            )
        told = _json(body)
        choice = _first(told.get("choices"))
        return _taught(choice.get("finish_reason"), _completion_tokens(told))


class Stream:
    """A body of server-sent events: the last usage that it tells, else one token an event."""

    def __init__(self) -> None:
        self._line = b""
        self._events, self._usage = 0, 0
        self._finish: str | None = None

    def add(self, data: bytes) -> None:
        """The next bytes of the body."""
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:") and len(line) <= LINE_BYTES:
                self._event(line[5:].strip())
        if len(self._line) > LINE_BYTES:
            self._line = self._line[: LINE_BYTES + 1]

    def _event(self, data: bytes) -> None:
        told = _json(data)
        choice = _first(told.get("choices"))
        delta = choice.get("delta")
        says = delta if isinstance(delta, dict) else {}
        self._events += bool(choice.get("text") or any(says.get(name) for name in _SAYS))
        self._finish = choice.get("finish_reason") or self._finish
        self._usage = _completion_tokens(told) or self._usage

    def length(self) -> int:
        """The tokens of the answer; Untaught with the reason why they teach nothing."""
        return _taught(self._finish, self._usage or self._events)


def watch(message: Message) -> Whole | Stream:
    """What reads the body that follows this ``http.response.start``; Untaught for none."""
    headers = {key.lower(): value for key, value in message.get("headers", ())}
    if message["status"] != 200:
        raise Untaught("status")
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise Untaught("encoded")
    streamed = headers.get(b"content-type", b"").startswith(b"text/event-stream")
    return Stream() if streamed else Whole()


def _taught(finish: Any, tokens: int) -> int:
    """A length that the model chose: one that was cut off is not known to the end."""
    if finish == "length":
        raise Untaught("cut_off")
    if finish != "stop":
        raise Untaught("other_finish" if finish else "unreadable")
    if tokens < 1:
        raise Untaught("unreadable")
    return tokens


def _json(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _first(choices: Any) -> dict[str, Any]:
    first = choices[0] if isinstance(choices, list) and choices else {}
    return first if isinstance(first, dict) else {}


def _completion_tokens(told: dict[str, Any]) -> int:
    usage = told.get("usage")
    found = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return found if type(found) is int and found > 0 else 0
