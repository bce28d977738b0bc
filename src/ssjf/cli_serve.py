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


def _options() -> list[click.Parameter]:
    """One option for each of ``ServeOptions``; texts, which are checked there."""
    found: list[click.Parameter] = []
    for field in fields(ServeOptions):
        flag = FLAGS.get(field.name, f"--{field.name.replace('_', '-')}")
        told = f"{HELP[field.name]}  [default: {field.default or 'none'}]"
        values = "|".join(CHOICES.get(field.name, ())) or "VALUE"
        found.append(click.Option([flag, field.name], metavar=values, help=told))
    return found


@click.command(context_settings={"ignore_unknown_options": True}, params=_options())
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
    options = ServeOptions.from_environment(ENVIRONMENT | given)
    arguments = command.command(model, vllm_options)
    if not dry_run:
        command.check_vllm()
    loading.check(options)
    variables = options.environment()
    if dry_run:
        click.echo(shlex.join([*(f"{k}={v}" for k, v in variables.items()), *arguments]))
        return
    kept = {name: text for name, text in ENVIRONMENT.items() if not name.startswith(PREFIX)}
    os.execvpe(arguments[0], arguments, kept | variables)


@click.command("serve", context_settings={"ignore_unknown_options": True}, params=_options())
@click.argument("model")
@click.argument("vllm_options", nargs=-1, type=click.UNPROCESSED)
@click.option("--data", help="Texts with lengths, as of `ssjf train`  [default: made-up prompts]")
@click.option("--requests", default=40, show_default=True, type=click.IntRange(2))
@click.option("--rate", type=click.FloatRange(0, min_open=True),
              help="Requests a second  [default: all at once]")  # fmt: skip
@click.option("--context-tokens", default=2048, show_default=True, type=click.IntRange(2),
              help="At most so many tokens of prompt and answer.")  # fmt: skip
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(1), help="Repetitions.")
@click.option("--json", "as_json", is_flag=True)
def bench_serve(model: str, vllm_options: tuple[str, ...], data: str | None, requests: int,
                rate: float | None, context_tokens: int, seeds: int, as_json: bool,
                **own: str | None) -> None:  # fmt: skip
    """Serve MODEL with `vllm serve`, then with `ssjf serve`, and compare the same requests.

    MODEL comes first; an option that is not below is one of `vllm serve`. The load is that of
    `vllm bench serve`; the lengths of answers are forced. Made-up prompts have lengths around the
    proxy's predictions: they show what the order does, not how good the proxy is.
    """
    from ssjf.study import load_bench, load_summary

    given = {PREFIX + name.upper(): text for name, text in own.items() if text is not None}
    options = ServeOptions.from_environment(load_bench.IGNORING | ENVIRONMENT | given)
    rows = load_bench.compared(model, vllm_options, options, data, requests, rate, context_tokens,
                               seeds, lambda words: click.echo(words, err=True))  # fmt: skip
    if as_json:
        click.echo(load_summary.estimates(rows).to_json(orient="records", indent=1))
        return
    click.echo(load_summary.table(rows, load_bench.LABELS).T.to_string(header=False))
    click.echo(load_summary.sentence(rows, "ssjf"))
