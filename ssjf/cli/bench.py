"""``ssjf bench``."""

import click

from ssjf.cli.common import Group, print_records
from ssjf.cli.vllm import ENVIRONMENT, ServeCommand, variables


@click.group(cls=Group)
def bench() -> None:
    """Measure the package itself."""


@bench.command("simulator")
@click.option("--json", "as_json", is_flag=True)
def bench_simulator(as_json: bool) -> None:
    """Requests per second of the simulator, by policy."""
    from ssjf.experiments import bench as measured

    print_records(measured.simulator(), as_json)


@bench.command("proxy")
@click.option("--proxy", "name", default="builtin", show_default=True, help="Folder.")
@click.option("--json", "as_json", is_flag=True)
def bench_proxy(name: str, as_json: bool) -> None:
    """Milliseconds per prompt of a proxy model, by size of prompt and batch."""
    from ssjf.experiments import bench as measured

    print_records(measured.proxy(name), as_json)


@bench.command("serve", cls=ServeCommand, context_settings={"ignore_unknown_options": True})
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
    from ssjf.analysis import server_load
    from ssjf.experiments.runs import server
    from ssjf.serving.options import ServeOptions

    chosen = ServeOptions.from_environment(server.IGNORING | ENVIRONMENT | variables(own))
    rows = server.compared(model, vllm_options, chosen, data, requests, rate, context_tokens,
                           seeds, lambda words: click.echo(words, err=True))  # fmt: skip
    if as_json:
        click.echo(server_load.estimates(rows).to_json(orient="records", indent=1))
        return
    click.echo(server_load.table(rows, server.LABELS).T.to_string(header=False))
    click.echo(server_load.sentence(rows, "ssjf"))
