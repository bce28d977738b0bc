"""Train, validation and test by a hash of the prompt: the same prompt is always on one side.

No shuffle and no seed: the split of a prompt needs neither the other prompts nor their order,
so it holds over data sets, and two files that share a prompt cannot leak it.
"""

import hashlib
import unicodedata
from collections.abc import Iterable

import numpy as np

from ssjf.request import IntArray

SPLITS = ("train", "val", "test")


def normalised(prompt: str) -> str:
    """The prompt in Unicode NFC and lower case, each run of white space as one space, stripped."""
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
    """The split of a prompt in one of ``folds`` cross-validations: every prompt is tested once."""
    away = (int(prompt_hash(prompt)[:8], 16) - fold) % folds
    return "test" if away == 0 else "val" if away == 1 else "train"


def distinct(prompts: Iterable[str]) -> IntArray:
    """The indices of the first of each normalised prompt, in order."""
    first: dict[str, int] = {}
    for i, prompt in enumerate(prompts):
        first.setdefault(normalised(prompt), i)
    return np.array([*first.values()], np.int64)
