"""A step-time profile fitted to recorded steps of a real engine."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssjf.errors import InputError
from ssjf.request import FloatArray
from ssjf.simulator.profile import Profile

COEFFICIENTS = (
    "step_seconds", "per_sequence_seconds", "per_context_token_seconds",
    "per_prefill_token_seconds",
)  # fmt: skip
FEWEST = 100
SHARE_CUT = 0.01
"""The slowest share of steps that is left out: what another process did, not what a step costs."""


@dataclass(frozen=True)
class Fit:
    """A profile and how far from the recorded steps it stays.

    relative_error: median of |fitted - recorded| / recorded over the steps. total_error: of all
    steps' time together, fitted / recorded - 1; the slowest, left out of the fit, included.
    """

    profile: Profile
    steps: int
    relative_error: float
    total_error: float


def fit(name: str, steps: Mapping[str, FloatArray], source: str = "") -> Fit:
    """Least squares with coefficients of at least 0; columns as ``engine.vllm.driver.PER_STEP``.

    Raises InputError for fewer than ``FEWEST`` steps.
    """
    from scipy.optimize import nnls

    durations = np.asarray(steps["ended_at"] - steps["started_at"], np.float64)
    terms = np.stack([
        np.ones(len(durations)), steps["sequences"], steps["context_tokens"],
        steps["prefill_tokens"],
    ], axis=1).astype(np.float64)  # fmt: skip
    if len(durations) < FEWEST:
        raise InputError(f"{len(durations)} steps were recorded; a profile needs {FEWEST}")
    kept = durations <= np.quantile(durations, 1 - SHARE_CUT)
    scale = terms[kept].max(0) + (terms[kept].max(0) == 0)  # columns of like size
    found = nnls(terms[kept] / scale, durations[kept])[0] / scale
    fitted = terms @ found
    values: dict[str, Any] = dict(zip(COEFFICIENTS, map(float, found), strict=True))
    return Fit(
        Profile(name, **values, source=source),
        len(durations),
        float(np.median(np.abs(fitted / durations - 1))),
        float(fitted.sum() / durations.sum() - 1),
    )


def to_toml(found: Fit) -> str:
    """The profile as a file that ``profile`` reads."""
    p = found.profile
    lines = [
        f"# Fitted to {found.steps} recorded steps: median error of a step "
        f"{100 * found.relative_error:.1f} %, of all together {100 * found.total_error:+.1f} %.",
        f'name = "{p.name}"',
        *(f"{key} = {getattr(p, key):.6g}" for key in COEFFICIENTS),
        f'source = "{p.source}"',
    ]
    return "\n".join(lines) + "\n"
