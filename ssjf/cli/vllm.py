"""``ssjf model make`` and ``ssjf calibrate``: what measuring on vLLM starts with."""

from pathlib import Path

import click

from ssjf.cli.group import Group


@click.group(cls=Group)
def model() -> None:
    """Models to measure scheduling with: random weights, no download."""


@model.command("make")
@click.option("--shape", default="tiny", show_default=True, help="tiny, mid, 160m, 1b or 8b.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder.")
@click.option("--weights", help="random, or none (then vLLM needs --load-format dummy).")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
def model_make(shape: str, out: Path, weights: str | None, seed: int) -> None:
    """Make a Llama of that shape that vLLM can serve; it talks nonsense at the real speed."""
    from ssjf.harness.models import SHAPES, make

    made = make(shape, out, weights, seed)
    dummy = "" if (made / "model.safetensors").exists() else "; serve it with --load-format dummy"
    click.echo(f"{made}: {SHAPES[shape].parameters / 1e6:,.0f} M parameters{dummy}")


@click.command()
@click.argument("deployment")
@click.option("--out", type=click.Path(path_type=Path), help="Default: DEPLOYMENT.toml, here.")
def calibrate(deployment: str, out: Path | None) -> None:
    """Fit a step-time profile to a short run of vLLM.

    DEPLOYMENT is cpu-tiny, cpu-mid, gpu-1b, gpu-8b or a .toml file. What was recorded stays as a
    raw run; the profile serves every --profile, by its name or its path.
    """
    from ssjf.experiments import fidelity

    click.echo(fidelity.calibrate(deployment, out))
