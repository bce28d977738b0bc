"""The duration of a step: named profiles, a user's own from TOML, or one fitted to real steps.

A step that processes ``prefill`` prompt tokens, runs ``sequences`` requests and reads
``context`` KV tokens takes

    step + per_sequence * sequences + per_context_token * context + per_prefill_token * prefill

seconds. ``precision`` is the engine's number format when it was measured, "" if nothing was.
``start_up_steps`` are steps that a request spends in its slot, like decode steps, before its first
token. Coefficients are whole picoseconds inside the simulator.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from ssjf.config import checked, read_toml
from ssjf.errors import InputError, unknown
from ssjf.request import FloatArray, IntArray

PICOSECONDS = 10**12
COEFFICIENTS = (
    "step_seconds", "per_sequence_seconds", "per_context_token_seconds",
    "per_prefill_token_seconds",
)  # fmt: skip
FEWEST = 100
SHARE_CUT = 0.01
"""A fit leaves out this slowest share of steps: other processes slowed them, not the engine."""

Seconds = Annotated[float, Field(ge=0, lt=1e4)]


@checked
class Profile:
    """The step-time model of one machine and model; see the module docstring."""

    name: str
    step_seconds: float = Field(gt=0, lt=1e4)
    per_sequence_seconds: Seconds = 0.0
    per_context_token_seconds: Seconds = 0.0
    per_prefill_token_seconds: Seconds = 0.0
    start_up_steps: int = Field(0, ge=0, lt=10**4)
    source: str = ""
    precision: str = ""

    def picoseconds(self) -> tuple[int, ...]:
        """The four ``COEFFICIENTS`` in whole picoseconds."""
        return tuple(round(getattr(self, name) * PICOSECONDS) for name in COEFFICIENTS)

    def alone_seconds(self, prompt_tokens: IntArray, output_tokens: IntArray) -> FloatArray:
        """Seconds from start to last token of requests served alone, shape (n,).

        The denominator of slowdown. Exact if the prompt fits one step's token budget.
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
    return {name: Profile(**{"name": name, **tables[name]}) for name in sorted(tables)}


def profile(name: str) -> Profile:
    """Return a profile by name, or from a ``.toml`` file with the fields of ``Profile``."""
    if name.endswith(".toml"):
        path = Path(name)
        table = {"name": path.stem, **read_toml("profile", path)}
        try:
            return Profile(**table)
        except InputError as error:
            raise InputError(f"profile file {path}: {error}") from None
    if name not in builtin_profiles():
        raise unknown("profile", name, builtin_profiles())
    return builtin_profiles()[name]


@dataclass(frozen=True)
class Fit:
    """A profile and its errors on the recorded steps, including the slowest.

    relative_error: median of |fitted - recorded| / recorded over the steps. total_error: fitted /
    recorded - 1 of the total time of all steps.
    """

    profile: Profile
    steps: int
    relative_error: float
    total_error: float

    def to_toml(self) -> str:
        """The text of a file that ``profile`` reads."""
        lines = [
            f"# Fitted to {self.steps} recorded steps: median error of a step "
            f"{100 * self.relative_error:.1f} %, of all together {100 * self.total_error:+.1f} %.",
            f'name = "{self.profile.name}"',
            *(f"{name} = {getattr(self.profile, name):.6g}" for name in COEFFICIENTS),
            f'source = "{self.profile.source}"',
            f'precision = "{self.profile.precision}"',
        ]
        return "\n".join(lines) + "\n"


def fit(name: str, steps: Mapping[str, FloatArray], source: str = "", precision: str = "") -> Fit:
    """Fit by least squares with coefficients of at least 0; columns as ``harness.run.PER_STEP``.

    Raises InputError for fewer than ``FEWEST`` steps.
    """
    from scipy.optimize import nnls

    durations = np.asarray(steps["ended_at"] - steps["started_at"], np.float64)
    columns = (steps["sequences"], steps["context_tokens"], steps["prefill_tokens"])
    terms = np.stack([np.ones(len(durations)), *columns], axis=1).astype(np.float64)
    if len(durations) < FEWEST:
        raise InputError(f"{len(durations)} steps were recorded; a profile needs {FEWEST}")
    kept = durations <= np.quantile(durations, 1 - SHARE_CUT)
    scale = terms[kept].max(0) + (terms[kept].max(0) == 0)  # columns of similar size
    coefficients = nnls(terms[kept] / scale, durations[kept])[0] / scale
    fitted = terms @ coefficients
    values: dict[str, Any] = dict(zip(COEFFICIENTS, coefficients.tolist(), strict=True))
    return Fit(
        Profile(name, **values, source=source, precision=precision),
        len(durations),
        float(np.median(np.abs(fitted / durations - 1))),
        float(fitted.sum() / durations.sum() - 1),
    )
