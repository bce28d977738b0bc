"""The JSON body of a request: its top-level members, and where ``priority`` goes.

Bytes are only ever inserted, or those of one value replaced: everything else stays as it was sent.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()
WHITE = b" \t\n\r"


class Unpredicted(Exception):
    """Why a request gets no prediction, in one word that metrics count by."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Body:
    """A body that is one JSON object with distinct names.

    members: by name. spans: where each value stands in ``text``, in characters.
    """

    text: str
    members: dict[str, Any]
    spans: dict[str, tuple[int, int]]

    @classmethod
    def of(cls, data: bytes) -> "Body":
        """The body of these bytes; Unpredicted if it is something else."""
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            raise Unpredicted("not_utf8") from None
        try:
            return cls(text, *_members(text))
        except (ValueError, RecursionError):
            raise Unpredicted("malformed_json") from None

    def with_priority(self, priority: int) -> bytes:
        """Its bytes with this priority: the one value replaced, or a last member added."""
        if "priority" in self.spans:
            start, end = self.spans["priority"]
            return f"{self.text[:start]}{priority}{self.text[end:]}".encode()
        data = self.text.encode()
        end = len(data.rstrip(WHITE)) - 1
        comma = "," if self.members else ""
        return b"".join((data[:end], f'{comma}"priority":{priority}'.encode(), data[end:]))


def _members(text: str) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
    """The members of the object that a text is, and the spans of their values."""
    members: dict[str, Any] = {}
    spans: dict[str, tuple[int, int]] = {}
    at = _after_space(text, 0)
    if text[at : at + 1] != "{":
        _DECODER.decode(text)
        raise Unpredicted("not_an_object")
    at = _after_space(text, at + 1)
    while members or text[at : at + 1] != "}":
        name, at = _DECODER.raw_decode(text, at)
        if not isinstance(name, str):
            raise ValueError("a name must be text")
        at = _after_space(text, _past(text, at, ":"))
        value, end = _DECODER.raw_decode(text, at)
        if name in members:
            raise Unpredicted("duplicate_key")
        members[name], spans[name] = value, (at, end)
        at = _after_space(text, end)
        if text[at : at + 1] != ",":
            break
        at = _after_space(text, at + 1)
    if _after_space(text, _past(text, at, "}")) != len(text):
        raise ValueError("text after the object")
    return members, spans


def _past(text: str, at: int, sign: str) -> int:
    at = _after_space(text, at)
    if text[at : at + 1] != sign:
        raise ValueError(f"no {sign} at {at}")
    return at + 1


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at
