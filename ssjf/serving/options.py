"""What can be chosen of a length-aware server, and how it reaches the server's process."""

import math
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from typing import Any

from ssjf.config import SERVE_PREFIX as PREFIX
from ssjf.errors import InputError, unknown

CHOICES = {
    "client_priority": ("respect", "override"),
    "client_limit": ("respect", "ignore"),
    "learn": ("none", "calibration", "retrieval"),
    "log_level": ("debug", "info", "warning", "error"),
}
LIMITS = {
    "deadline_ms": (0.1, 60_000),
    "longest_tokens": (1, 10**6),
    "max_body_mb": (0.001, 1000),
    "max_batch": (1, 1024),
    "save_seconds": (0.1, 86_400),
    "max_state_mb": (0.0001, 10_000),
}
OVERTAKE = (0.01, 86_400)


@dataclass(frozen=True)
class ServeOptions:
    """See ``CHOICES`` and ``LIMITS``; the environment has each as ``SSJF_SERVE_NAME``.

    proxy: a folder, or ``builtin``. client_priority: what becomes of a priority that a client sets
        (``respect``: it stays, on the client's own scale). client_limit: whether a client's
        ``max_tokens`` caps the prediction (``ignore`` it where a measurement forces lengths by it).
    deadline_ms: how long a request waits for its prediction.
    overtake_seconds: no request is overtaken by one that arrives more than so many seconds later;
        0 is first come, first served, None (``none``) is pure SSJF: no bound.
    longest_tokens: a prediction of so many tokens or more waits the whole ``overtake_seconds``.
    learn: what finished requests teach. state: the file that keeps it, "" for none;
        save_seconds: how often at most it is written; max_state_mb: no larger.
    max_body_mb: a larger request is not read. max_batch: prompts of one call of the proxy.
    """

    proxy: str = "builtin"
    client_priority: str = "respect"
    client_limit: str = "respect"
    deadline_ms: float = 20.0
    overtake_seconds: float | None = 30.0
    longest_tokens: int = 1024
    learn: str = "calibration"
    state: str = ""
    save_seconds: float = 30.0
    max_state_mb: float = 64.0
    max_body_mb: float = 4.0
    max_batch: int = 32
    log_level: str = "info"

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise unknown(name, getattr(self, name), known)
        for name, (low, high) in LIMITS.items():
            _check_number(name, getattr(self, name), low, high)
        if self.overtake_seconds not in (None, 0):
            _check_number("overtake_seconds", self.overtake_seconds, *OVERTAKE, "none, 0 or ")
        if not self.proxy:
            raise InputError("proxy is empty; it must be a folder, or builtin")
        if self.state and self.learn == "none":
            raise InputError("state keeps what was learned, but learn is 'none'; leave one out")

    @property
    def max_body_bytes(self) -> int:
        """The largest body that is read."""
        return int(self.max_body_mb * 1e6)

    @property
    def max_state_bytes(self) -> int:
        """The largest state that is written."""
        return int(self.max_state_mb * 1e6)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "ServeOptions":
        """The options of ``SSJF_SERVE_*`` variables; InputError for what is none."""
        known = {f"{PREFIX}{field.name.upper()}": field for field in fields(cls)}
        given = {name: text for name, text in environ.items() if name.startswith(PREFIX)}
        for name in given:
            if name not in known:
                raise unknown("variable", name, known)
        return cls(**{known[name].name: _read(known[name], text) for name, text in given.items()})

    def environment(self) -> dict[str, str]:
        """The inverse of ``from_environment``: a variable for each option that is not as usual."""
        values = {field: getattr(self, field.name) for field in fields(self)}
        return {
            f"{PREFIX}{field.name.upper()}": "none" if value is None else str(value)
            for field, value in values.items() if value != field.default
        }  # fmt: skip


def _read(field: "Field[Any]", text: str) -> Any:
    """The value that a text says, of the type of the default."""
    kind: Any = type(field.default)
    if field.name == "overtake_seconds" and text == "none":
        return None
    try:
        return kind(text)
    except ValueError:
        wanted = "whole number" if kind is int else "number"
        raise InputError(f"{field.name} is {text!r}; it must be a {wanted}") from None


def _check_number(name: str, value: Any, low: float, high: float, also: str = "") -> None:
    if not math.isfinite(value) or not low <= value <= high:
        raise InputError(f"{name} is {value:g}; it must be {also}from {low:g} to {high:g}")
