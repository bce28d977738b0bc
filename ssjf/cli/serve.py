"""``ssjf serve``: a vLLM server in length-aware order."""

import os
import shlex
from dataclasses import fields

import click

from ssjf.serving.options import CHOICES, PREFIX, ServeOptions

# As it was before the command line limited the threads of this process: those of the server are
# its user's matter.
ENVIRONMENT = dict(os.environ)
HELP = {
    "proxy": "What predicts lengths: a folder.",
    "client_priority": "What becomes of a priority that a client sets.",
    "client_limit": "Whether a client's max_tokens caps its prediction.",
    "deadline_ms": "How long a request waits for its prediction.",
    "overtake_seconds": "No request is overtaken by one that arrives more than so much later; "
    "0 is FCFS, none is pure SSJF.",
    "longest_tokens": "A prediction of so much or more waits all of it.",
    "learn": "What finished requests teach.",
    "state": "A file that keeps what was learned.",
    "save_seconds": "How often at most it is written.",
    "max_state_mb": "It is written no larger.",
    "max_body_mb": "A larger request is not read.",
    "max_batch": "Requests predicted at a time.",
    "log_level": "How much is told on standard error.",
}
FLAGS = {"log_level": "--ssjf-log-level"}  # vLLM has a --log-level of its own


def options() -> list[click.Parameter]:
    """One option for each of ``ServeOptions``; texts, which are checked there."""
    found: list[click.Parameter] = []
    for field in fields(ServeOptions):
        flag = FLAGS.get(field.name, f"--{field.name.replace('_', '-')}")
        told = f"{HELP[field.name]}  [default: {field.default or 'none'}]"
        values = "|".join(CHOICES.get(field.name, ())) or "VALUE"
        found.append(click.Option([flag, field.name], metavar=values, help=told))
    return found


@click.command(context_settings={"ignore_unknown_options": True}, params=options())
@click.argument("model")
@click.argument("vllm_options", nargs=-1, type=click.UNPROCESSED)
@click.option("--dry-run", is_flag=True, help="Print the command instead of running it.")
def serve(model: str, vllm_options: tuple[str, ...], dry_run: bool, **own: str | None) -> None:
    """Serve MODEL with vLLM, shortest predicted answer first; clients change nothing.

    MODEL comes first; an option that is not below is one of `vllm serve`. A server that is started
    otherwise takes --scheduling-policy priority --middleware ssjf.serving.Middleware, and a
    variable SSJF_SERVE_NAME for each option below.
    """
    from ssjf.serving import command, loading

    given = {PREFIX + name.upper(): text for name, text in own.items() if text is not None}
    chosen = ServeOptions.from_environment(ENVIRONMENT | given)
    arguments = command.command(model, vllm_options)
    if not dry_run:
        command.check_vllm()
    loading.check(chosen)
    variables = chosen.environment()
    if dry_run:
        click.echo(shlex.join([*(f"{k}={v}" for k, v in variables.items()), *arguments]))
        return
    kept = {name: text for name, text in ENVIRONMENT.items() if not name.startswith(PREFIX)}
    os.execvpe(arguments[0], arguments, kept | variables)
