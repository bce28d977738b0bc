"""Columns that follow from the rows of a table of texts."""

from collections import defaultdict
from collections.abc import Hashable
from pathlib import Path

import numpy as np

from ssjf.request import FloatArray, IntArray
from ssjf.workload.tables import Columns, refuse

NOT_EXTRA = {"conversation_id", "turn", "prompt", "response", "model", "output_tokens",
             "thread", "chunk"}  # fmt: skip


def first_prompts(
    prompts: list[str], threads: list, chunks: list[int], turn: IntArray
) -> list[str]:
    """For each row the prompt that opens its thread: the first turn of its lowest chunk."""
    first: dict[Hashable, str] = {}
    for i in np.lexsort((turn, np.asarray(chunks, np.int64))):
        first.setdefault(threads[i], prompts[i])
    return [first[thread] for thread in threads]


def histories(conversations: list, turn: IntArray, prompts: list[str], answers: list) -> list[str]:
    """For each row the earlier turns of its conversation, as lines `[USER]: …`, `[ASSISTANT]: …`.

    An answer of None is not known and has no line.
    """
    said: dict[Hashable, list[str]] = defaultdict(list)
    found = [""] * len(prompts)
    for i in np.argsort(turn, kind="stable"):
        found[i] = "\n".join(said[conversations[i]])
        answer = [] if answers[i] is None else [f"[ASSISTANT]: {answers[i]}"]
        said[conversations[i]] += [f"[USER]: {prompts[i]}", *answer]
    return found


def extra_numbers(path: Path, rows: Columns, needed: str | None) -> dict[str, FloatArray]:
    """The other columns that hold only numbers, NaN where missing; ``needed`` must be one."""
    found = {name: _numeric(values) for name, values in rows.items() if name not in NOT_EXTRA}
    if needed in found and found[needed] is None:
        wrong = np.array([_numeric([value]) is None for value in rows[needed]])
        refuse(path, needed, rows[needed], wrong, "is not a number")
    return {name: column for name, column in found.items() if column is not None}


def _numeric(values: list) -> FloatArray | None:
    try:
        return np.array([np.nan if v is None or v == "" else float(v) for v in values])
    except (TypeError, ValueError, OverflowError):
        return None
