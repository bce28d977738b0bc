"""``--memory ewt,host_tokens=200000,…``: a memory of two tiers from one line of text."""

from dataclasses import fields
from typing import Any

from ssjf.errors import InputError, unknown
from ssjf.simulator.memory import ON_PREEMPTION, Memory


def memory_of(text: str) -> Memory:
    """What is done with a preempted request, then ``name=value`` for fields of ``Memory``.

    InputError names what is wrong and lists what is known.
    """
    first, *rest = [part.strip() for part in text.split(",")]
    if first not in ON_PREEMPTION:
        raise unknown("memory", first, ON_PREEMPTION)
    given: dict[str, Any] = {"on_preemption": first}
    known = [field.name for field in fields(Memory) if field.name != "on_preemption"]
    for part in rest:
        name, equals, value = part.partition("=")
        if name not in known:
            raise unknown("option of --memory", name, known)
        given[name] = _value(name, value if equals else "")
    return Memory(**given)


def _value(name: str, text: str) -> Any:
    if name == "reserve":
        return text
    if name == "overlap":
        if text not in ("true", "false"):
            raise InputError(f"--memory: overlap is {text!r}; it must be true or false")
        return text == "true"
    whole = name in ("host_tokens", "quantise", "maximum_tokens")
    try:
        return int(text) if whole else float(text)
    except ValueError:
        number = "whole number" if whole else "number"
        raise InputError(f"--memory: {name} is {text!r}; it must be a {number}") from None
