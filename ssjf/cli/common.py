"""What commands share: errors as one sentence, and how they print."""

import errno
import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from ssjf.errors import InputError, unknown

# Packages by extra
_EXTRAS = {
    "train": ("lightgbm", "sklearn", "torch", "transformers", "onnx"),
    "proxy": ("onnxruntime", "tokenizers"),
    "serve": ("httpx", "prometheus_client", "uvicorn"),
    "ray": ("ray", "aiohttp", "fastapi", "grpc", "starlette", "watchfiles"),
}
_HELP = getattr(click.exceptions, "NoArgsIsHelpError", ())  # click 8.1 has none


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Report bad input in one sentence with exit code 2, never a traceback."""
    try:
        yield
    except _HELP:
        raise
    except (InputError, click.UsageError, OSError, ModuleNotFoundError) as error:
        click.echo(f"ssjf: {_sentence(error)}", err=True)
        sys.exit(2)


def _sentence(error: Exception) -> str:
    """Return an error's sentence for the user; raise any other error again."""
    if isinstance(error, click.UsageError):
        return error.format_message().rstrip(".")
    if isinstance(error, OSError):
        if error.errno == errno.EPIPE or error.filename is None:
            raise error
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "ssjf").partition(".")[0]
        if package == "ssjf":
            raise error
        extra = next((e for e, packages in _EXTRAS.items() if package in packages), "notebooks")
        return f"this needs the package {error.name}; run pip install 'ssjf[{extra}]'"
    return str(error)


class Group(click.Group):
    """A group that reports every error in one sentence, as do the groups in it."""

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
    """Print a value as indented JSON."""
    click.echo(json.dumps(_finite(value), indent=1, default=str))


def _finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON lacks, by None."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [*map(_finite, value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(frame: Any) -> None:
    """Print a frame as text, with four digits a number."""
    click.echo(frame.to_string(index=False, float_format=lambda v: f"{v:,.4g}"))
