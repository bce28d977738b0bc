"""The one error meant for users: a clear sentence, no traceback, exit code 2."""

from collections.abc import Iterable


class InputError(ValueError):
    """Input is wrong; the message says what, where and what is allowed."""


def unknown(kind: str, name: object, known: Iterable[str]) -> InputError:
    """Make the error for an unknown name, which lists the known ones."""
    return InputError(f"unknown {kind} {name!r}; known: {', '.join(sorted(known))}")
