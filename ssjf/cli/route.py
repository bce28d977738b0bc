"""``ssjf route``: the middleware as a reverse proxy before servers that run."""

import asyncio
from contextlib import closing

import click

from ssjf.cli.vllm import ENVIRONMENT, ServeCommand, variables


@click.command(cls=ServeCommand)
@click.option("--upstream", "upstreams", multiple=True, metavar="URL",
              help="A server of the OpenAI API; once for each replica.")  # fmt: skip
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535))
@click.option("--slots", default=256, show_default=True, type=click.IntRange(1),
              help="Of all together (max_num_seqs), for the contract's replay.")  # fmt: skip
@click.option("--wait-seconds", default=60.0, show_default=True, type=click.FloatRange(0, 3600),
              help="How long a completion waits for a server to come back.")  # fmt: skip
def route(upstreams: tuple[str, ...], host: str, port: int, slots: int, wait_seconds: float,
          **own: str | None) -> None:  # fmt: skip
    """Order what goes to servers that were started otherwise, short predicted answers first.

    They need --scheduling-policy priority. A completion goes to the server with the fewest under
    way, with its priority in the body and as X-Vllm-Priority, and its predicted length as
    X-SSJF-Predicted-Tokens; all else passes on as it is. Own metrics are at /ssjf/metrics.
    """
    import uvicorn

    from ssjf.serving import predictor
    from ssjf.serving.middleware import Middleware
    from ssjf.serving.options import ServeOptions
    from ssjf.serving.replicas.route import Route, check, listening

    chosen = ServeOptions.from_environment(ENVIRONMENT | variables(own))
    asyncio.run(check(upstreams))
    app = Middleware(Route(upstreams, wait_seconds), chosen, predictor.load(chosen, slots))
    with closing(listening(host, port)) as socket:
        click.echo(f"http://{host}:{socket.getsockname()[1]} before {', '.join(upstreams)}")
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
        server.run(sockets=[socket])
