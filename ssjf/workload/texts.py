"""Prompts with the lengths of their answers, the training data of length predictors.

The split of a prompt is determined by a hash of its text, independent of other prompts and their
order, so that it is the same in every data set: files that share a prompt cannot leak it.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssjf.errors import InputError, unknown
from ssjf.request import FloatArray, IntArray
from ssjf.workload.catalogue import TEXTS, find
from ssjf.workload.tables import MAX_TOKENS, TEXT_SUFFIXES, Columns, refuse, tokens
from ssjf.workload.text_formats import extra_numbers, first_prompts, histories, read_rows
from ssjf.workload.tokenizers import KNOWN, count_tokens

NOT_A_LABEL = "is not a whole number of at least 1"
SPLITS = ("train", "val", "test")


def normalised(prompt: str) -> str:
    """Normalise a prompt: Unicode NFC, lower case, white space collapsed and stripped."""
    return " ".join(unicodedata.normalize("NFC", prompt).split()).lower()


def prompt_hash(prompt: str) -> str:
    """The first 16 hex digits of the sha256 of the normalised prompt."""
    # Broken JSON escapes give lone surrogates, which plain UTF-8 refuses.
    data = normalised(prompt).encode("utf-8", "surrogatepass")
    return hashlib.sha256(data).hexdigest()[:16]


def split_of(prompt: str) -> str:
    """'train' (80 % of all prompts), 'val' or 'test' (10 % each)."""
    percent = int(prompt_hash(prompt)[:8], 16) % 100
    return "train" if percent < 80 else "val" if percent < 90 else "test"


def fold_of(prompt: str, folds: int, fold: int) -> str:
    """The split of a prompt in fold ``fold`` of a cross-validation that tests each prompt once."""
    away = (int(prompt_hash(prompt)[:8], 16) - fold) % folds
    return "test" if away == 0 else "val" if away == 1 else "train"


def distinct(prompts: Iterable[str]) -> IntArray:
    """Indices of the first occurrence of each normalised prompt, in order."""
    first: dict[str, int] = {}
    for i, prompt in enumerate(prompts):
        first.setdefault(normalised(prompt), i)
    return np.array([*first.values()], np.int64)


@dataclass(frozen=True)
class Texts:
    """n prompts as columns of n entries; lengths in tokens.

    ``first_prompts`` opened the conversations (by default the prompts themselves) and determine
    the split of a row. ``turn`` counts from 1. ``history`` holds earlier turns as ``[USER]: …`` and
    ``[ASSISTANT]: …`` lines, or "". ``extra`` holds further numeric columns, NaN where missing,
    such as the lengths of other models' answers.
    """

    prompts: list[str]
    output_tokens: IntArray
    first_prompts: list[str] = field(default_factory=list)
    turn: IntArray = field(default_factory=lambda: np.array([], np.int64))
    history: list[str] = field(default_factory=list)
    model: list[str] | None = None
    extra: Mapping[str, FloatArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.prompts)
        defaults = {"first_prompts": self.prompts, "turn": np.ones(n), "history": [""] * n}
        for name, value in defaults.items():
            if not len(getattr(self, name)):
                object.__setattr__(self, name, value)
        for name in ("output_tokens", "turn"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.int64))
        columns: list = [self.output_tokens, self.first_prompts, self.turn, self.history]
        columns += [*self.extra.values(), *([self.model] if self.model else [])]
        if any(len(column) != n for column in columns):
            raise ValueError(f"every column of texts must have its {n} rows")

    def __len__(self) -> int:
        return len(self.prompts)

    def take(self, rows: NDArray | slice) -> "Texts":
        """The given rows (indices, mask or slice), in the given order."""
        at = np.arange(len(self))[rows]
        columns = {name: column for name, column in vars(self).items() if column is not None}
        extra = columns.pop("extra")
        taken: dict[str, Any] = {name: [column[i] for i in at] for name, column in columns.items()}
        return Texts(**taken, extra={name: column[at] for name, column in extra.items()})

    def splits(self) -> NDArray[np.str_]:
        """The split of every row, (n,), by its conversation's first prompt."""
        return np.array([split_of(prompt) for prompt in self.first_prompts], "U5")

    def split(self, name: str) -> "Texts":
        """The rows of 'train', 'val' or 'test'; no first prompt is in two of them."""
        if name not in SPLITS:
            raise unknown("split", name, SPLITS)
        return self.take(self.splits() == name)

    def distinct(self) -> "Texts":
        """The first row of each normalised text with its history, of any model."""
        return self.take(distinct(self.text(turn_only=False)))

    def labelled(self, column: str) -> "Texts":
        """The rows that have an extra column, with that as ``output_tokens``."""
        if column not in self.extra:
            raise unknown("label", column, self.extra)
        values = self.extra[column]
        there = ~np.isnan(values)
        wrong = there & ((values < 1) | (values > MAX_TOKENS) | (values != np.floor(values)))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise InputError(f"row {row + 1}, column {column}: {values[row]:g} {NOT_A_LABEL}")
        return replace(self.take(there), output_tokens=values[there].astype(np.int64))

    def text(self, turn_only: bool) -> list[str]:
        """The text for a predictor: the prompt, preceded by earlier turns unless ``turn_only``."""
        if turn_only:
            return self.prompts
        return [f"{before}\n[USER]: {prompt}" if before else prompt
                for before, prompt in zip(self.history, self.prompts, strict=True)]  # fmt: skip


def load_texts(
    path_or_name: str | Path, tokenizer: str | None = None, label: str | None = None
) -> Texts:
    """Load the texts of a named data set (see catalogue) or of a file (see text_formats).

    ``output_tokens`` is the file's column of that name, or the tokens that ``tokenizer`` counts in
    the answers (see tokenizers), or the column ``label``. Rows with an empty answer or without the
    label are left out. Raises InputError, which names file, row and column.
    """
    return joined([_load(path, tokenizer, label) for path in _paths(path_or_name)])


def check_trainable(texts: Texts) -> None:
    """Raise InputError unless there are two distinct prompts and every row has its length."""
    if texts.output_tokens.size and texts.output_tokens.min() < 1:
        row = int(np.argmax(texts.output_tokens < 1))
        value = texts.output_tokens[row]
        raise InputError(f"row {row + 1}: an output length of {value} tokens {NOT_A_LABEL}")
    count = len(distinct(texts.text(turn_only=False)))
    if count < 2:
        raise InputError(f"{count} distinct prompts among {len(texts)} rows; training needs two")


def _paths(path_or_name: str | Path) -> list[Path]:
    if path_or_name in TEXTS:
        return find(str(path_or_name))
    path = Path(path_or_name)
    if path.suffix.lower() not in TEXT_SUFFIXES and not path.exists():
        raise unknown("text data set", str(path), TEXTS)
    return [path]


def _load(path: Path, tokenizer: str | None, label: str | None) -> Texts:
    label = None if label == "output_tokens" else label
    rows = read_rows(path)
    lengths = None if label else _output_tokens(path, rows, tokenizer)
    texts = _texts(path, rows, lengths, label)
    try:
        kept = texts.labelled(label) if label else texts.take(texts.output_tokens > 0)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if not len(kept):
        raise InputError(f"{path}: no row has {f'a value of {label}' if label else 'an answer'}")
    return kept


def _texts(path: Path, rows: Columns, lengths: IntArray | None, label: str | None) -> Texts:
    prompts = rows["prompt"]
    n = len(prompts)
    turn = tokens(path, "turn", rows.get("turn", [1] * n))
    named = rows.get("conversation_id", [None] * n)
    ids: list = [i if name is None else str(name) for i, name in enumerate(named)]
    model = [str(each or "") for each in rows["model"]] if "model" in rows else None
    answered_by = [*zip(ids, model or [""] * n, strict=True)]  # several models may answer one
    return Texts(
        prompts,
        np.zeros(n, np.int64) if lengths is None else lengths,
        first_prompts(prompts, rows.get("thread", ids), rows.get("chunk", [0] * n), turn),
        turn,
        histories(answered_by, turn, prompts, rows.get("response", [None] * n)),
        model,
        extra_numbers(path, rows, needed=label),
    )


def _output_tokens(path: Path, rows: Columns, tokenizer: str | None) -> IntArray:
    """Tokens of each answer, 0 only for an empty one."""
    answers, counts = rows.get("response"), rows.get("output_tokens")
    if tokenizer is not None and answers is not None:
        return count_tokens([answer or "" for answer in answers], tokenizer)
    if tokenizer is not None:
        raise InputError(f"{path}: there is no column response for a tokenizer to count")
    if counts is None and answers is not None:
        raise InputError(
            f"{path}: the lengths of the answers are not there; name the tokenizer that counts "
            f"them: {', '.join(KNOWN)}"
        )
    if counts is None:
        raise InputError(f"{path}: neither output_tokens nor response is there; one is needed")
    output_tokens = tokens(path, "output_tokens", counts, low=0)
    answered = [answers is None or bool(answers[i]) for i in range(len(counts))]
    refuse(path, "output_tokens", counts, (output_tokens == 0) & answered, NOT_A_LABEL)
    return output_tokens


def joined(parts: list[Texts]) -> Texts:
    """Join texts, with the columns that all have."""
    if len(parts) == 1:
        return parts[0]
    names = ["prompts", "output_tokens", "first_prompts", "turn", "history"]
    names += ["model"] if all(part.model for part in parts) else []
    columns: dict[str, Any] = {
        name: [*chain.from_iterable(getattr(part, name) for part in parts)] for name in names
    }
    shared = [name for name in parts[0].extra if all(name in part.extra for part in parts)]
    extra = {name: np.concatenate([part.extra[name] for part in parts]) for name in shared}
    return Texts(**columns, extra=extra)
