"""The one error a user is meant to read: a clear sentence, no traceback, exit code 2."""

from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave is wrong; the message says what, where and what is allowed."""


def unknown(kind: str, name: object, known: Iterable[str]) -> InputError:
    """The error for a name nobody knows: it lists the names that are known."""
    return InputError(f"unknown {kind} {name!r}; known: {', '.join(sorted(known))}")
