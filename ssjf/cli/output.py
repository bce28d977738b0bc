"""How commands print what they found."""

import json
import math
from typing import Any

import click


def print_json(value: Any) -> None:
    """As JSON, indented."""
    click.echo(json.dumps(_finite(value), indent=1, default=str))


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for what is not a number."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(frame: Any) -> None:
    """A frame as text, four digits a number."""
    click.echo(frame.to_string(index=False, float_format=lambda v: f"{v:,.4g}"))


def print_records(found: list[dict[str, Any]], as_json: bool) -> None:
    """Records as JSON, or as a table."""
    import pandas as pd

    if as_json:
        print_json(found)
    else:
        print_table(pd.DataFrame(found))


def listed(value: Any) -> str:
    """A value of a record in words: of a dictionary and of a list every part."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {listed(each)}" for key, each in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value or "none")
