"""``ssjf train`` and ``ssjf predict``."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssjf.errors import InputError

if TYPE_CHECKING:
    from ssjf.proxy.base import Proxy

BATCH = 256  # prompts predicted at once


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
@click.option("--json", "as_json", is_flag=True, help="One object a line, with quantiles.")
def predict(proxy_name: str, source: str, as_json: bool) -> None:
    """Predict the output length of every prompt, in input order."""
    from ssjf.proxy import io as proxy_folder

    proxy = proxy_folder.load(proxy_name)
    for row in predictions(proxy, read_prompts(source)):
        click.echo(json.dumps(row) if as_json else f"{row['predicted_tokens']:g}")


def predictions(proxy: "Proxy", prompts: list[str]) -> Iterator[dict[str, Any]]:
    """Yield an object per prompt, in order: predicted_tokens, and quantiles by level."""
    for start in range(0, len(prompts), BATCH):
        predicted = proxy.predict(prompts[start : start + BATCH])
        for tokens, quantiles in zip(predicted.tokens, predicted.quantiles, strict=True):
            levels = zip(predicted.levels, quantiles, strict=True)
            yield {
                "predicted_tokens": round(float(tokens), 1),
                "quantiles": {f"{level:g}": round(float(value), 1) for level, value in levels},
            }


def read_prompts(source: str) -> list[str]:
    """Read the column ``prompt`` of a file, or of JSON lines from standard input (``-``)."""
    import numpy as np

    from ssjf.workload.tables import json_lines, read_columns, refuse

    if source == "-":
        source = "standard input"
        values: list = [row.get("prompt") for row in json_lines(source, _standard_input())]
        if not values:
            raise InputError("standard input has no rows; at least one is needed")
    else:
        values = read_columns(Path(source), ["prompt"])["prompt"]
    refuse(source, "prompt", values, np.array([not isinstance(v, str) for v in values]),
           "is not text")  # fmt: skip
    return values


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("standard input is not text in UTF-8") from None
