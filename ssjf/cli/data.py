"""``ssjf data``."""

import click

from ssjf.cli.common import Group, print_json


@click.group(cls=Group)
def data() -> None:
    """Public traces, lengths and texts, by name."""


@data.command("list")
@click.option("--json", "as_json", is_flag=True)
def data_list(as_json: bool) -> None:
    """All data sets, and where each is on this machine."""
    from ssjf.workload import datasets

    records = datasets.describe_all()
    if as_json:
        print_json(records)
        return
    for record in records:
        place = record["path"] or f"not here: {record['url']}"
        click.echo(f"{record['name']}: {record['kind']}, {record['licence']}; {place}")


@data.command("get")
@click.argument("name")
@click.option("--force", is_flag=True, help="Download again.")
def data_get(name: str, force: bool) -> None:
    """Download a data set into the cache, or say how to get it."""
    from ssjf.workload import datasets

    for path in datasets.get(name, force):
        click.echo(path)


@data.command("path")
@click.argument("name")
def data_path(name: str) -> None:
    """Where a data set is."""
    from ssjf.workload import catalogue

    for path in catalogue.find(name):
        click.echo(path)
