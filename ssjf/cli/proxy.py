"""``ssjf train`` and ``ssjf predict``."""

import json
from pathlib import Path

import click


@click.command()
@click.option(
    "--proxy",
    "spec_name",
    default="light",
    show_default=True,
    help="light, encoder, retrieval, … or a .toml file of your own.",
)
@click.option("--data", "data_name", required=True, help="A text data set, or a file of texts.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder.")
@click.option("--tokenizer", help="Counts the answers if the data have no lengths: cl100k_base, ….")
def train(spec_name: str, data_name: str, out: Path, tokenizer: str | None) -> None:
    """Train a proxy model on texts and judge it on their test split.

    A training that was killed goes on where it was when it is asked for again.
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
    for found in predicting.predictions(proxy, predicting.prompts_of(source), llm):
        click.echo(json.dumps(found) if as_json else f"{found['predicted_tokens']:g}")
