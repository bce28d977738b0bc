"""How long a step takes: named profiles and a user's own from TOML.

A step that processes ``prefill`` prompt tokens, runs ``sequences`` requests and reads
``context`` KV tokens takes

    step + per_sequence * sequences + per_context_token * context + per_prefill_token * prefill

seconds. ``start_up_steps`` are steps that a request spends in its slot, like decode steps,
before its first token. Coefficients are whole picoseconds inside the engine.
"""

from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ssjf.config import read_toml
from ssjf.errors import InputError, unknown
from ssjf.request import FloatArray, IntArray

PICOSECONDS = 10**12


@dataclass(frozen=True)
class Profile:
    """The step-time model of one machine and model; see the module docstring."""

    name: str
    step_seconds: float
    per_sequence_seconds: float = 0.0
    per_context_token_seconds: float = 0.0
    per_prefill_token_seconds: float = 0.0
    start_up_steps: int = 0
    source: str = ""

    def __post_init__(self) -> None:
        if not self.step_seconds > 0:
            raise InputError(
                f"profile {self.name}: step_seconds is {self.step_seconds}; it must be above 0"
            )
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float | int) and not (0 <= value < 1e4):
                raise InputError(
                    f"profile {self.name}: {field.name} is {value}; it must be from 0 to 10,000"
                )

    def picoseconds(self) -> tuple[int, int, int, int]:
        """(step, per sequence, per context token, per prefill token) in whole picoseconds."""
        seconds = (
            self.step_seconds,
            self.per_sequence_seconds,
            self.per_context_token_seconds,
            self.per_prefill_token_seconds,
        )
        return tuple(round(s * PICOSECONDS) for s in seconds)  # type: ignore[return-value]

    def alone_seconds(self, prompt_tokens: IntArray, output_tokens: IntArray) -> FloatArray:
        """Time from start to last token of requests served alone, shape (n,).

        The denominator of slowdown. Exact where the prompt fits one step's token budget.
        """
        step, sequence, context, prefill = self.picoseconds()
        steps = np.asarray(output_tokens, np.int64) + self.start_up_steps
        prompt = np.asarray(prompt_tokens, np.int64)
        read = prompt * steps + steps * (steps - 1) // 2
        return ((step + sequence) * steps + context * read + prefill * prompt) / PICOSECONDS


@cache
def builtin_profiles() -> dict[str, Profile]:
    """The profiles that come with the package, by name."""
    path = Path(str(resources.files("ssjf.simulator"))) / "profiles.toml"
    tables = read_toml("profile", path)
    return {name: _checked(tables[name], path, name) for name in sorted(tables)}


def profile(name: str) -> Profile:
    """A profile by name, or from a path ending in ``.toml``."""
    if name.endswith(".toml"):
        return from_toml(Path(name))
    if name not in builtin_profiles():
        raise unknown("profile", name, builtin_profiles())
    return builtin_profiles()[name]


def from_toml(path: Path) -> Profile:
    """A user's profile: TOML with the fields of ``Profile``; its name defaults to the file's."""
    return _checked(read_toml("profile", path), path, path.stem)


def _checked(given: dict[str, Any], path: Path, name: str) -> Profile:
    known = [f.name for f in fields(Profile)]
    for key, value in given.items():
        if key not in known:
            raise InputError(f"profile file {path}: unknown key {key!r}; known: {', '.join(known)}")
        allowed, words = _ALLOWED.get(key, _SECONDS)
        if type(value) not in allowed:  # True is an int to Python, not to a reader
            raise InputError(f"profile file {path}: {key} is {value!r}; it must be {words}")
    if "step_seconds" not in given:
        raise InputError(f"profile file {path}: step_seconds is missing")
    return Profile(**{"name": name, **given})


_SECONDS = (float, int), "a number of seconds"
_ALLOWED = {
    "name": ((str,), "text"),
    "source": ((str,), "text"),
    "start_up_steps": ((int,), "a whole number"),
}
