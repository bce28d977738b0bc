"""``ssjf data``, ``ssjf train`` and ``ssjf predict``."""

import json
from pathlib import Path

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


@click.command()
@click.option("--proxy", "spec_name", default="light", show_default=True,
              help="light, encoder, retrieval, … or a .toml file of your own.")  # fmt: skip
@click.option("--data", "data_name", required=True, help="A text data set, or a file of texts.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder.")
@click.option("--tokenizer", help="Counts the answers if the data have no lengths: cl100k_base, ….")
def train(spec_name: str, data_name: str, out: Path, tokenizer: str | None) -> None:
    """Train a proxy model on texts and judge it on their test split.

    A training that was killed goes on where it was when it is started again.
    """
    from ssjf.experiments import train as training
    from ssjf.proxy.io import read_spec

    card = training.train(read_spec(spec_name), data_name, out, tokenizer=tokenizer)
    click.echo(f"{out}: trained in {card['train_seconds']} s on {card['rows']['train']} prompts")
    for name, (value, *interval) in card["test"].items():
        click.echo(f"  {name}: {value}" + (f" [{interval[0]}, {interval[1]}]" if interval else ""))


@click.command()
@click.option("--proxy", "proxy_name", default="builtin", show_default=True, help="Folder.")
@click.option("--input", "source", required=True, help="jsonl, csv or parquet; - is JSONL.")
@click.option("--llm", help="Which LLM answers, for a proxy that was trained on several.")
@click.option("--json", "as_json", is_flag=True, help="One object a line, with quantiles.")
def predict(proxy_name: str, source: str, llm: str | None, as_json: bool) -> None:
    """Predict the output length of every prompt, in input order."""
    from ssjf.experiments import predicting
    from ssjf.proxy import io as folder

    proxy = folder.load(proxy_name)
    predicting.check_llm(proxy, llm)
    for row in predicting.predictions(proxy, predicting.prompts_of(source), llm):
        click.echo(json.dumps(row) if as_json else f"{row['predicted_tokens']:g}")
