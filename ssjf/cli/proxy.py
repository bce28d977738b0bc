"""``ssjf train`` and ``ssjf predict``."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssjf.errors import InputError, unknown

if TYPE_CHECKING:
    from ssjf.proxy.base import Proxy

BATCH = 256  # prompts that are predicted at once


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
    from ssjf.proxy import io as proxy_folder

    proxy = proxy_folder.load(proxy_name)
    known = getattr(proxy, "llms", ())
    if llm is not None and not known:
        raise InputError(f"this proxy was not trained to tell LLMs apart; leave out --llm {llm}")
    if llm is not None and llm not in known:
        raise unknown("LLM", llm, known)
    prompts = _from_lines(sys.stdin.buffer.read()) if source == "-" else _from_file(source)
    for each in predictions(proxy, prompts, llm):
        click.echo(json.dumps(each) if as_json else f"{each['predicted_tokens']:g}")


def predictions(proxy: "Proxy", prompts: list[str], llm: str | None) -> Iterator[dict[str, Any]]:
    """One object per prompt, in order: predicted_tokens, and quantiles by level."""
    for start in range(0, len(prompts), BATCH):
        part = prompts[start : start + BATCH]
        predicted = proxy.predict(part, None if llm is None else [llm] * len(part))
        for tokens, quantiles in zip(predicted.tokens, predicted.quantiles, strict=True):
            levels = zip(predicted.levels, quantiles, strict=True)
            yield {
                "predicted_tokens": round(float(tokens), 1),
                "quantiles": {f"{level:g}": round(float(value), 1) for level, value in levels},
            }


def _from_file(name: str) -> list[str]:
    from ssjf.workload.tables import read_columns

    values = read_columns(Path(name), ["prompt"])["prompt"]
    for row, value in enumerate(values, 1):
        if not isinstance(value, str):
            raise InputError(f"{name}, row {row}, column prompt: {value!r:.60} is not text")
    return values


def _from_lines(data: bytes) -> list[str]:
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise InputError("standard input is not text in UTF-8") from None
    prompts = [_prompt(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not prompts:
        raise InputError("standard input has no rows; at least one is needed")
    return prompts


def _prompt(number: int, line: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"standard input, line {number}: not valid JSON ({error})") from None
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
        raise InputError(f'standard input, line {number}: not an object with a text "prompt"')
    return row["prompt"]
