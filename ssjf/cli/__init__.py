"""The command line: every command is a few calls into the library."""

import os

import click

from ssjf import __version__
from ssjf.cli.common import Group
from ssjf.cli.data import data
from ssjf.cli.demo import demo
from ssjf.cli.proxy import predict, train
from ssjf.cli.route import route
from ssjf.cli.simulate import simulate
from ssjf.cli.study import arena, check, list_names, notebook, report, run
from ssjf.cli.vllm import calibrate, model, serve


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ssjf")
def main() -> None:
    """Length-aware scheduling for LLM serving: simulate it, measure it, cite it."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")


for command in (arena, calibrate, check, data, demo, list_names, model, notebook, predict,
                report, route, run, serve, simulate, train):  # fmt: skip
    main.add_command(command)
