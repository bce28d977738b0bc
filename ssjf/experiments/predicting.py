"""``ssjf predict``: prompts from a file or standard input, one prediction a line."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ssjf.errors import InputError, unknown
from ssjf.proxy.base import Prediction, Proxy
from ssjf.workload.tables import read_columns

BATCH = 256


def prompts_of(name: str, stdin: BinaryIO | None = None) -> list[str]:
    """The ``prompt`` column of a .jsonl, .csv or .parquet file, or JSONL from ``-``."""
    if name == "-":
        return _from_lines(stdin or sys.stdin.buffer)
    values = read_columns(Path(name), ["prompt"])["prompt"]
    for row, value in enumerate(values, 1):
        if not isinstance(value, str):
            raise InputError(f"{name}, row {row}, column prompt: {value!r:.60} is not text")
    return values


def _from_lines(stdin: BinaryIO) -> list[str]:
    try:
        lines = stdin.read().decode("utf-8-sig").split("\n")
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


def check_llm(proxy: Proxy, llm: str | None) -> None:
    """InputError for an LLM that the proxy was not trained to tell."""
    known = getattr(proxy, "llms", ())
    if llm is not None and not known:
        raise InputError(f"this proxy was not trained to tell LLMs apart; leave out --llm {llm}")
    if llm is not None and llm not in known:
        raise unknown("LLM", llm, known)


def predictions(
    proxy: Proxy, prompts: list[str], llm: str | None = None
) -> Iterator[dict[str, Any]]:
    """One object per prompt, in order: predicted_tokens, and quantiles by level."""
    for start in range(0, len(prompts), BATCH):
        part = prompts[start : start + BATCH]
        predicted = proxy.predict(part, None if llm is None else [llm] * len(part))
        for row in range(len(predicted.tokens)):
            yield _object(predicted, row)


def _object(predicted: Prediction, row: int) -> dict[str, Any]:
    levels = zip(predicted.levels, predicted.quantiles[row], strict=True)
    return {
        "predicted_tokens": round(float(predicted.tokens[row]), 1),
        "quantiles": {f"{level:g}": round(float(value), 1) for level, value in levels},
    }
