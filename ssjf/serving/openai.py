"""Completion requests (of OpenAI's API and Anthropic's): ASGI messages, and what they ask for."""

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"  # OpenAI's newer, and Anthropic's
LIMITS = {
    CHAT: ("max_completion_tokens", "max_tokens"), COMPLETIONS: ("max_tokens",),
    RESPONSES: ("max_output_tokens",), MESSAGES: ("max_tokens",),
}  # fmt: skip
"""Names of the limit on an answer's tokens in a body, by route; the first that is there counts."""
UNHEARD = ("/v1/chat/completions/batch", "/inference/v1/generate", "/cohere/v2/chat",
           "/v1/systemone", "/generative_scoring")  # fmt: skip
"""Other routes that generate: vLLM takes their priority from the body alone."""
HEARD = "/invocations"  # one more, for any of their bodies, which takes the header
MAX_PROMPTS = 64  # of one request; a longer list is not predicted
COMPLETION_TOKENS = 16  # default max_tokens of /v1/completions
MOST_PARTS = 64  # of a body, each an object; further ones are joined
ROLES = {"user": "[USER]", "assistant": "[ASSISTANT]"}


class NotPredicted(Exception):
    """The reason why a request gets no prediction: one word, a label of metrics."""


class IncomingRequest:
    """An HTTP request: its headers, the part of its body that was read, and its client.

    ``scope`` is the application's; setting a header changes it. ``route``: the one of ``LIMITS``
    that its path is.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope, self._receive = scope, receive
        self.route = route_of(scope["path"]) or COMPLETIONS
        self._read: list[Message] = []
        self.disconnected = False

    async def body(self, max_bytes: int, encoded: bool = False) -> bytes:
        """Return the whole body; NotPredicted if it is larger than ``max_bytes``, not sent to its
        end or, unless ``encoded`` is allowed, compressed."""
        length = self.header(b"content-length") or b""
        if length.isdigit() and int(length) > max_bytes:
            raise NotPredicted("too_large")
        size, more = 0, True
        while more:
            message = await self._next()
            self._keep(message)
            if message["type"] != "http.request":
                raise NotPredicted("disconnected")
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
            if size > max_bytes:
                raise NotPredicted("too_large")
        if not encoded and self.header(b"content-encoding") not in (None, b"identity"):
            raise NotPredicted("encoded")
        return self._joined()

    def _keep(self, message: Message) -> None:
        if len(self._read) >= MOST_PARTS:  # a message for each byte would take hundreds
            self._read = [{"type": "http.request", "body": self._joined(), "more_body": True}]
        self._read.append(message)

    def _joined(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self._read)

    def replace_body(self, body: bytes) -> None:
        """Replace the body that was read."""
        self._read = [{"type": "http.request", "body": body, "more_body": False}]
        if self.header(b"content-length") is not None:
            self.set_headers({b"content-length": b"%d" % len(body)})

    async def receive(self) -> Message:
        """Return the application's next message: first those that were read, then the rest."""
        return self._read.pop(0) if self._read else await self._next()

    async def _next(self) -> Message:
        message = await self._receive()
        self.disconnected = self.disconnected or message["type"] == "http.disconnect"
        return message

    def header(self, name: bytes) -> bytes | None:
        """Return the value of a header, or None."""
        return next((value for key, value in self.scope["headers"] if key.lower() == name), None)

    def set_headers(self, values: Mapping[bytes, bytes | None]) -> None:
        """Replace or add headers; None removes one."""
        headers = [pair for pair in self.scope["headers"] if pair[0].lower() not in values]
        added = [(name, value) for name, value in values.items() if value is not None]
        self.scope = {**self.scope, "headers": [*headers, *added]}


THINKING = ("enable_thinking", "thinking")  # of chat templates
THINKING_TOKENS, SHORT_TOKENS = 4096.0, 100.0
NO = (None, False, 0, "false", "False", "no", "off", "0", "f", "n")  # false to vLLM


@dataclass(frozen=True)
class CompletionRequest:
    """What a request asks for.

    prompts: the longest answer to any of them counts. max_tokens: None for no limit. n: answers
    to all prompts together.
    """

    prompts: tuple[str, ...]
    model: str = ""
    max_tokens: int | None = None
    n: int = 1


def parsed(data: bytes) -> dict[str, Any]:
    """Parse a body that is a JSON object; NotPredicted for any other."""
    try:
        body = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise NotPredicted("not_utf8") from None
    except (ValueError, RecursionError):
        raise NotPredicted("malformed_json") from None
    if not isinstance(body, dict):
        raise NotPredicted("not_an_object")
    return body


def with_priority(body: bytes, priority: bytes | None) -> bytes:
    """Return a JSON object with ``priority`` (unless None) as its last member, which is the one
    that counts; any other body unchanged."""
    if priority is None or body.lstrip()[:1] != b"{" or body.rstrip()[-1:] != b"}":
        return body
    before = body.rstrip()[:-1].rstrip()
    comma = b"" if before.endswith(b"{") else b","
    return before + comma + b'"priority":' + priority + b"}"


def by_metadata(body: Mapping[str, Any]) -> float | None:
    """Return an answer's length by llm-d's rule, which reads no prompt; None if it has none.

    Thinking 4096 tokens, tools or no thinking 100 (llm-d-router#2309, ``outlen-bucket``, which
    takes 1000 where it has no rule).
    """
    template, thinking = body.get("chat_template_kwargs"), body.get("thinking")
    thinks = [template.get(name) for name in THINKING] if isinstance(template, dict) else []
    if isinstance(thinking, dict):
        thinks.append(thinking.get("type") == "enabled")
    effort = body.get("reasoning_effort")
    if isinstance(effort, str):
        thinks.append(effort != "none")
    if True in thinks:
        return THINKING_TOKENS
    return SHORT_TOKENS if False in thinks or body.get("tools") else None


def route_of(path: str) -> str | None:
    """Return the route of ``LIMITS`` that a path ends with, or None."""
    return next((route for route in LIMITS if path.endswith(route)), None)


def completion_request(body: Mapping[str, Any], route: str, history: bool) -> CompletionRequest:
    """Return what a body asks for; NotPredicted if it holds no text.

    ``history``: the proxy was trained on earlier turns of conversations, too.
    """
    if route == COMPLETIONS:
        prompts = _prompts(body.get("prompt"))
    elif route == RESPONSES and isinstance(body.get("input"), str):
        prompts = (body["input"],)
    else:
        prompts = (_conversation(body.get("input" if route == RESPONSES else "messages"), history),)
    model = body.get("model")
    name = model if isinstance(model, str) else ""
    return CompletionRequest(prompts, name, max_tokens(body, route), answers(body) * len(prompts))


def answers(body: Mapping[str, Any]) -> int:
    """Return the number of answers to each prompt."""
    return max(_count(body.get("n")) or 1, _count(body.get("best_of")) or 1)


def max_tokens(body: Mapping[str, Any], route: str) -> int | None:
    """Return the most tokens of an answer that the client allows, or None."""
    if route == COMPLETIONS and "max_tokens" not in body:
        return COMPLETION_TOKENS
    return next(filter(None, (_count(body.get(name)) for name in LIMITS[route])), None)


def least_tokens(body: Mapping[str, Any], limit: int | None) -> int:
    """Return an answer's least length: ``min_tokens``, or if the model may not end it
    (``ignore_eos``) the limit, or many."""
    if body.get("ignore_eos") not in NO:
        return limit or int(THINKING_TOKENS)
    return _count(body.get("min_tokens")) or 0


def _count(value: Any) -> int | None:
    """Return a whole number above 0 as vLLM reads it, from 5, 5.0 and "5" alike; else None."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if number >= 1 and number.is_integer() else None


def _prompts(prompt: Any) -> tuple[str, ...]:
    prompts = prompt if isinstance(prompt, list) else [prompt]
    if prompts and type(prompts[0]) in (int, list):
        raise NotPredicted("token_ids")
    if len(prompts) > MAX_PROMPTS:
        raise NotPredicted("many_prompts")
    if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise NotPredicted("no_text")
    return tuple(prompts)


def _conversation(messages: Any, history: bool) -> str:
    """Return the user's last message, with ``history`` after the turns before it.

    The form is that of ``Texts.text``: messages of the system and of tools are left out.
    """
    pairs = map(_message, messages) if isinstance(messages, list) else ()
    turns = [(role, text) for role, text in pairs if role in ROLES]
    last = max((i for i, (role, _) in enumerate(turns) if role == "user"), default=None)
    if last is None:
        raise NotPredicted("no_text")
    lines = [f"{ROLES[role]}: {text}" for role, text in turns[: last + 1]]
    return "\n".join(lines) if history and last else turns[last][1]


def _message(message: Any) -> tuple[str, str]:
    """Return role and text; of content in parts (text, pictures, sound) the text."""
    if not isinstance(message, dict):
        raise NotPredicted("no_text")
    content, role = message.get("content"), message.get("role")
    if isinstance(content, list):
        parts = [each.get("text") if isinstance(each, dict) else each for each in content]
        content = "\n".join(part for part in parts if isinstance(part, str))
    return str(role), content if isinstance(content, str) else ""
