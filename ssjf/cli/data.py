"""``ssjf data``."""

import click

from ssjf.cli.common import Group, listed, print_json, print_table


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
    for each in records:
        click.echo(f"{each['name']}: {each['kind']}, {each['licence']}; "
                   f"{each['path'] or 'not here: ' + str(each['url'])}")  # fmt: skip


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


@data.command("describe")
@click.argument("name_or_file")
@click.option("--tokenizer", help="What counts the answers: cl100k_base, hf:FOLDER_OR_ID, ….")
@click.option("--label", help="The column of lengths (default: output_tokens).")
@click.option("--format", help="The format of the texts (default: by its columns).")
@click.option("--json", "as_json", is_flag=True)
def data_describe(name_or_file: str, as_json: bool, **reading: str | None) -> None:
    """Rows, splits, lengths and arrivals of a data set, or of a file of texts or a trace."""
    import pandas as pd

    from ssjf.workload.datasets import describe

    numbers = describe(name_or_file, **reading)
    if as_json:
        print_json({"name": name_or_file} | numbers)
        return
    lengths = numbers.pop("output_tokens")
    for key, value in numbers.items():
        click.echo(f"{key}: {listed(value)}")
    print_table(pd.DataFrame([{"output_tokens": part, **row} for part, row in lengths.items()]))
