"""From recorded steps of vLLM to a step-time profile."""

from pathlib import Path

import pandas as pd

from ssjf.errors import InputError
from ssjf.experiments import grid, runner
from ssjf.files import whole_file
from ssjf.harness.deployment import deployment
from ssjf.simulator.profile import Fit, fit

EXPERIMENT = "vllm-calibration"


def calibrate(name: str, out: Path | None = None) -> str:
    """Record steps (once; they are a raw run) and write the profile; what was found, in words."""
    known = deployment(name).name
    out = out or Path(f"{known}.toml")
    if out.suffix != ".toml":
        raise InputError(f"{out} must end in .toml: profiles are found by that")
    runner.run(EXPERIMENT, deployment=name)
    found = fitted(name)
    with whole_file(out) as temporary:
        temporary.write_text(found.to_toml())
    return (
        f"{out}: {found.profile.step_seconds * 1e3:.3g} ms a step; {found.steps} steps, median "
        f"error of one {100 * found.relative_error:.1f} %, of all {100 * found.total_error:+.1f} %"
    )


def fitted(name: str) -> Fit:
    """The profile that the recorded steps of a deployment give."""
    recorded = grid.rows(EXPERIMENT, deployment=name)
    (run_id,) = recorded["run_id"].unique()
    columns = {column: recorded[column].to_numpy() for column in _numbers(recorded)}
    source = f"fitted to {EXPERIMENT}/{run_id} (env.json there says where)"
    return fit(deployment(name).name, columns, source)


def _numbers(recorded: pd.DataFrame) -> list[str]:
    return [name for name in recorded if pd.api.types.is_numeric_dtype(recorded[name])]
