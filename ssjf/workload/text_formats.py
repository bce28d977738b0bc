"""Reads prompts and answers in published formats into one kind of table.

A format is recognised by its columns: see FORMATS. Errors raise InputError, which names the file.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ssjf.errors import InputError
from ssjf.request import FloatArray, IntArray
from ssjf.workload.tables import Columns, open_table, refuse

ROLES = dict.fromkeys(("user", "human"), "user") | dict.fromkeys(
    ("assistant", "gpt", "chatgpt", "bing", "bard"), "assistant"
)

NOT_EXTRA = {"conversation_id", "turn", "prompt", "response", "model", "output_tokens",
             "thread", "chunk"}  # fmt: skip


@dataclass(frozen=True)
class Format:
    """The columns that identify a format, its optional columns, and what makes its rows."""

    required: tuple[str, ...]
    optional: tuple[str, ...] | None  # None: every column of the file
    rows: Callable[[Path, Columns], Columns]


def read_rows(path: Path) -> Columns:
    """Read a file into one row per (prompt, answer), with at least a column ``prompt``.

    If known, there are also ``response``, ``model``, ``conversation_id`` and ``turn`` (from 1), and
    ``thread`` and ``chunk`` if a conversation was cut into several. Format "table" keeps all other
    columns. In conversations of "lmsys" and "sharegpt" a row is a user message followed by an
    answer.
    """
    names, read = open_table(path)
    chosen = _detect(path, names)
    wanted = [*chosen.required, *(names if chosen.optional is None else chosen.optional)]
    return chosen.rows(path, read([name for name in dict.fromkeys(wanted) if name in names]))


def _detect(path: Path, names: list[str]) -> Format:
    for format in FORMATS.values():
        if set(format.required) <= set(names):
            return format
    found = ", ".join(names) or "none"
    known = ", ".join(f"{' and '.join(each.required)} ({n})" for n, each in FORMATS.items())
    raise InputError(f"{path}: no column with prompts; found: {found}; needed: {known}")


def _table(path: Path, columns: Columns) -> Columns:
    """Columns prompt, and response or output_tokens; one row per turn of a conversation.

    If there is a column starts_mid_conversation, each conversation_id is ``ID_N`` as in ShareGPT.
    """
    _check_text(path, columns, "prompt", needed=True)
    _check_text(path, columns, "response")
    cut = {"starts_mid_conversation", "conversation_id"} <= columns.keys()
    return columns | (_threads(columns["conversation_id"]) if cut else {})


def _alpaca(path: Path, columns: Columns) -> Columns:
    """Stanford Alpaca, CodeAlpaca, AlpacaEval: prompts are instruction and input.

    https://github.com/tatsu-lab/stanford_alpaca
    """
    for name in ("instruction", "input", "output"):
        _check_text(path, columns, name, needed=name == "instruction")
    inputs = columns.get("input") or [""] * len(columns["instruction"])
    pairs = zip(columns["instruction"], inputs, strict=True)
    rows = {
        "prompt": [f"{one}\n\n{given}" if given else one for one, given in pairs],
        "response": columns["output"],
    }
    return rows | ({"model": columns["generator"]} if "generator" in columns else {})


def _halueval(path: Path, columns: Columns) -> Columns:
    """HaluEval's general data. https://github.com/RUCAIBox/HaluEval"""
    _check_text(path, columns, "user_query", needed=True)
    _check_text(path, columns, "chatgpt_response")
    return {"prompt": columns["user_query"], "response": columns["chatgpt_response"]}


def _conversations(path: Path, columns: Columns) -> Columns:
    """LMSYS-Chat-1M and ShareGPT, whose ids are ``ID_N`` for the N-th piece of a conversation.

    https://huggingface.co/datasets/lmsys/lmsys-chat-1m
    """
    name = next(name for name in ("conversation", "conversations") if name in columns)
    rows: Columns = {"conversation_id": [], "turn": [], "prompt": [], "response": []}
    for i, messages in enumerate(columns[name]):
        texts = _messages(f"{path}, row {i + 1}, column {name}", messages)
        for turn, (prompt, response) in enumerate(_turns(texts), 1):
            for key, value in zip(rows, (i, turn, prompt, response), strict=True):
                rows[key].append(value)
    if not rows["prompt"]:
        raise InputError(f"{path}: no conversation has a user's message that is answered")
    of = {key: [columns[key][i] for i in rows["conversation_id"]]
          for key in ("model", "id") if key in columns}  # fmt: skip
    return rows | (_threads(of.pop("id")) if "id" in of else {}) | of


def _messages(where: str, messages: Any) -> list[tuple[str, str]]:
    """(role, text) of the messages of user and assistant."""
    try:
        texts = [
            (ROLES.get(m["role"] if "role" in m else m["from"]),
             m["content"] if "content" in m else m["value"])
            for m in messages
        ]  # fmt: skip
    except (TypeError, KeyError):
        raise InputError(
            f"{where}: not a list of messages with role and content, or from and value"
        ) from None
    known = [(role, text or "") for role, text in texts if role]
    if not all(isinstance(text, str) for _, text in known):
        raise InputError(f"{where}: the content of every message must be text")
    return known


def _turns(texts: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for (role, prompt), (next_role, response) in pairwise(texts):
        if (role, next_role) == ("user", "assistant") and prompt.strip():
            yield prompt, response


def _threads(ids: list) -> Columns:
    """Split each id into its conversation and the number of the piece."""
    cut = [re.fullmatch(r"(.+)_(\d+)", str(each)) for each in ids]
    return {
        "thread": [match[1] if match else str(each) for match, each in zip(cut, ids, strict=True)],
        "chunk": [int(match[2]) if match else 0 for match in cut],
    }


def _check_text(path: Path, columns: Columns, name: str, needed: bool = False) -> None:
    """Check that values are text; unless ``needed``, they may be missing or empty."""
    values = columns.get(name, [])
    wrong = np.array([not isinstance(v, str) and (needed or v is not None) for v in values], bool)
    refuse(path, name, values, wrong, "is not text")
    if needed:
        empty = np.array([not value.strip() for value in values], bool)
        refuse(path, name, values, empty, "is empty; every row needs a prompt")


FORMATS = {
    "table": Format(("prompt",), None, _table),
    "lmsys": Format(("conversation",), ("model",), _conversations),
    "sharegpt": Format(("conversations",), ("id", "model"), _conversations),
    "alpaca": Format(("instruction", "output"), ("input", "generator"), _alpaca),
    "halueval": Format(("user_query", "chatgpt_response"), (), _halueval),
}


def first_prompts(
    prompts: list[str], threads: list, chunks: list[int], turn: IntArray
) -> list[str]:
    """For each row, the prompt that opens its thread: the first turn of its lowest chunk."""
    first: dict[Hashable, str] = {}
    for i in np.lexsort((turn, np.asarray(chunks, np.int64))):
        first.setdefault(threads[i], prompts[i])
    return [first[thread] for thread in threads]


def histories(conversations: list, turn: IntArray, prompts: list[str], answers: list) -> list[str]:
    """For each row, the earlier turns of its conversation as lines `[USER]: …`, `[ASSISTANT]: …`.

    An unknown answer (None) has no line.
    """
    lines: dict[Hashable, list[str]] = defaultdict(list)
    history = [""] * len(prompts)
    for i in np.argsort(turn, kind="stable"):
        history[i] = "\n".join(lines[conversations[i]])
        answer = [] if answers[i] is None else [f"[ASSISTANT]: {answers[i]}"]
        lines[conversations[i]] += [f"[USER]: {prompts[i]}", *answer]
    return history


def extra_numbers(path: Path, rows: Columns, needed: str | None) -> dict[str, FloatArray]:
    """The other numeric columns, NaN where missing; ``needed`` must be one of them."""
    columns = {name: _numeric(values) for name, values in rows.items() if name not in NOT_EXTRA}
    if needed in columns and columns[needed] is None:
        wrong = np.array([_numeric([value]) is None for value in rows[needed]])
        refuse(path, needed, rows[needed], wrong, "is not a number")
    return {name: column for name, column in columns.items() if column is not None}


def _numeric(values: list) -> FloatArray | None:
    try:
        return np.array([np.nan if v is None or v == "" else float(v) for v in values])
    except (TypeError, ValueError, OverflowError):
        return None
