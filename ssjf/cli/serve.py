"""``ssjf serve``: a vLLM server in length-aware order."""

import os
import shlex
from typing import get_args

import click

from ssjf.config import SERVE_PREFIX

# As it was before the command line limited the threads of this process: those of the server are
# its user's matter.
ENVIRONMENT = dict(os.environ)
FLAGS = {"log_level": "--ssjf-log-level"}  # vLLM has a --log-level of its own


def options() -> list[click.Parameter]:
    """One option for each of ``ServeOptions``; texts, which are checked there."""
    from ssjf.serving.options import ServeOptions

    found: list[click.Parameter] = []
    for name, field in ServeOptions.model_fields.items():
        flag = FLAGS.get(name, f"--{name.replace('_', '-')}")
        text = f"{field.description}  [default: {field.default or 'none'}]"
        choices = [each for each in get_args(field.annotation) if isinstance(each, str)]
        found.append(click.Option([flag, name], metavar="|".join(choices) or "VALUE", help=text))
    return found


class ServeCommand(click.Command):
    """A command that takes ``ServeOptions`` too, which are imported when it is used."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*options(), *super().get_params(ctx)]


@click.command(cls=ServeCommand, context_settings={"ignore_unknown_options": True})
@click.argument("model")
@click.argument("vllm_options", nargs=-1, type=click.UNPROCESSED)
@click.option("--dry-run", is_flag=True, help="Print the command instead of running it.")
def serve(model: str, vllm_options: tuple[str, ...], dry_run: bool, **own: str | None) -> None:
    """Serve MODEL with vLLM, shortest predicted answer first; clients change nothing.

    MODEL comes first; an option that is not below is one of `vllm serve`. A server that is started
    otherwise takes --scheduling-policy priority --middleware ssjf.serving.Middleware, and a
    variable SSJF_SERVE_NAME for each option below.
    """
    from ssjf.serving import predictor
    from ssjf.serving.options import ServeOptions, check_vllm, command

    chosen = ServeOptions.from_environment(ENVIRONMENT | variables(own))
    arguments = command(model, vllm_options)
    if not dry_run:
        check_vllm()
    predictor.check(chosen)
    own_variables = chosen.environment()
    if dry_run:
        click.echo(shlex.join([*(f"{k}={v}" for k, v in own_variables.items()), *arguments]))
        return
    kept = {name: text for name, text in ENVIRONMENT.items() if not name.startswith(SERVE_PREFIX)}
    os.execvpe(arguments[0], arguments, kept | own_variables)


def variables(own: dict[str, str | None]) -> dict[str, str]:
    """Options that were given as variables of the server's process."""
    return {SERVE_PREFIX + name.upper(): text for name, text in own.items() if text is not None}
