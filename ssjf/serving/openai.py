"""What a request asks: the text a proxy reads, whose model answers, and how long it may get."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ssjf.serving.bodies import Unpredicted

MOST_PROMPTS = 64  # of one request; a longer list is not predicted
COMPLETION_TOKENS = 16  # what /v1/completions gives where max_tokens is not said
SPEAKERS = {"user": "[USER]", "assistant": "[ASSISTANT]"}


@dataclass(frozen=True)
class Asked:
    """A request.

    texts: the prompts of which the longest answer counts. model: as the client names it.
    limit: the most tokens of an answer that the client allows, or None. answers: how many are
    asked for, all prompts together; ``n`` and ``best_of`` change nothing else, as a prediction is
    of any one answer.
    """

    texts: tuple[str, ...]
    model: str = ""
    limit: int | None = None
    answers: int = 1


def asked(members: Mapping[str, Any], chat: bool, history: bool) -> Asked:
    """What the members of a body ask; Unpredicted where there is no text.

    ``history``: the proxy was trained to read the turns before, too.
    """
    texts = (_conversation(members, history),) if chat else _prompts(members.get("prompt"))
    model = members.get("model")
    times = max(_count(members.get("n")) or 1, _count(members.get("best_of")) or 1)
    return Asked(
        texts, model if isinstance(model, str) else "", limit(members, chat), times * len(texts)
    )


def limit(members: Mapping[str, Any], chat: bool) -> int | None:
    """The most tokens that the client allows an answer, or None."""
    if chat and (found := _count(members.get("max_completion_tokens"))):
        return found
    return _count(members.get("max_tokens", None if chat else COMPLETION_TOKENS))


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 1 else None


def _prompts(prompt: Any) -> tuple[str, ...]:
    if isinstance(prompt, str):
        return (prompt,)
    if not isinstance(prompt, list) or not prompt:
        raise Unpredicted("no_text")
    if not isinstance(prompt[0], str):
        raise Unpredicted("token_ids" if isinstance(prompt[0], int | list) else "no_text")
    if len(prompt) > MOST_PROMPTS:
        raise Unpredicted("many_prompts")
    if not all(isinstance(each, str) for each in prompt):
        raise Unpredicted("no_text")
    return tuple(prompt)


def _conversation(members: Mapping[str, Any], history: bool) -> str:
    """The last message of the user, after the turns before it where ``history`` is read.

    The form is that of ``Texts.text``: messages of the system and of tools are left out.
    """
    messages = members.get("messages")
    said = [_message(each) for each in messages] if isinstance(messages, list) else []
    turns = [(role, text) for role, text in said if role in SPEAKERS]
    last = max((i for i, (role, _) in enumerate(turns) if role == "user"), default=None)
    if last is None:
        raise Unpredicted("no_text")
    lines = [f"{SPEAKERS[role]}: {text}" for role, text in turns[: last + 1]]
    return "\n".join(lines) if history and last else turns[last][1]


def _message(message: Any) -> tuple[str, str]:
    """Who says what; of parts (text, pictures, sound) the text."""
    if not isinstance(message, dict):
        raise Unpredicted("no_text")
    content, role = message.get("content"), message.get("role")
    if isinstance(content, list):
        parts = [each.get("text") if isinstance(each, dict) else each for each in content]
        content = "\n".join(part for part in parts if isinstance(part, str))
    return str(role), content if isinstance(content, str) else ""
