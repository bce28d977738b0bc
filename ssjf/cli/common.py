"""What commands share: one sentence for whatever is wrong with the input, and how they print."""

import errno
import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from ssjf.errors import InputError, unknown

# Packages of the extra of this name.
_EXTRAS = {
    "train": ("lightgbm", "sklearn", "torch", "transformers", "onnx"),
    "proxy": ("onnxruntime", "tokenizers"),
    "serve": ("httpx", "prometheus_client", "uvicorn"),
    "ray": ("ray", "aiohttp", "fastapi", "grpc", "starlette", "watchfiles"),
}
_HELP = getattr(click.exceptions, "NoArgsIsHelpError", ())  # click 8.1 has none


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Bad input is one sentence and exit code 2, never a traceback."""
    try:
        yield
    except _HELP:
        raise
    except (InputError, click.UsageError, OSError, ModuleNotFoundError) as error:
        click.echo(f"ssjf: {_sentence(error)}", err=True)
        sys.exit(2)


def _sentence(error: Exception) -> str:
    """What a reader needs of an error; raises it again where it is none of theirs."""
    if isinstance(error, click.UsageError):
        return error.format_message().rstrip(".")
    if isinstance(error, OSError):
        if error.errno == errno.EPIPE or error.filename is None:
            raise error
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ModuleNotFoundError):
        if not error.name or error.name.partition(".")[0] == "ssjf":
            raise error
        package = error.name.partition(".")[0]
        extra = next((e for e, packages in _EXTRAS.items() if package in packages), "notebooks")
        return f"this needs the package {error.name}; run pip install 'ssjf[{extra}]'"
    return str(error)


class Group(click.Group):
    """A group whose every complaint is one sentence; its own groups are of its kind."""

    group_class = type

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        with _one_sentence():
            return super().make_context(*args, **options)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] not in self.commands and not args[0].startswith("-"):
            raise unknown("command", args[0], self.commands)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with _one_sentence():
            return super().invoke(ctx)


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
