"""Features of a prompt for the light proxy: hashed word and letter n-grams, plain counts."""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any
from zlib import crc32

import numpy as np

from ssjf.request import FloatArray, IntArray

LONGEST_CHARACTERS = 20_000
"""A longer prompt keeps only its first and last half of this: tasks are stated at the ends."""
MOST_WORDS = 400
MOST_SPELLED = 160
LONGEST_REMEMBERED, MOST_REMEMBERED = 32, 50_000  # cached words: letters, and number

_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"  # Chinese, Japanese, Korean
_WORDS = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]")
_SIGN = re.compile(f"[{_UNSPACED}]")
_NUMBER = re.compile(r"\d{1,4}")
_CUES = (
    "list", "write", "story", "essay", "explain", "describe", r"summar\w*", "translate",
    "classify", "name", r"code|function|program|script", "poem", "sentence", "paragraph",
    "convert", "rewrite|edit", "how", "what", "why", r"create|generate", r"one|single", r"words?",
    r"steps?", "compare", r"article|blog|letter|e-?mail", r"brief\w*|short", r"detail\w*|long",
)  # fmt: skip
_CUE_PATTERNS = [re.compile(cue) for cue in _CUES]
_HYPHENED = re.compile(r"\be-mail\b")  # the one cue of two words
_MAIL = next(i for i, cue in enumerate(_CUES) if "mail" in cue)


def clipped(prompt: str) -> str:
    """The prompt, or its two ends if it is longer than ``LONGEST_CHARACTERS``."""
    return _ends(prompt, LONGEST_CHARACTERS)


def _ends(sequence: Any, most: int) -> Any:
    half = most // 2
    return sequence if len(sequence) <= 2 * half else sequence[:half] + sequence[-half:]


def words_of(prompt: str) -> list[str]:
    """The words and signs of a prompt in lower case; a long one is read at both ends.

    In scripts without spaces between words every sign counts as a word.
    """
    return _WORDS.findall(clipped(prompt).lower())


@lru_cache(maxsize=1)  # learning reads a prompt right after its prediction
def grams(prompt: str, buckets: int) -> IntArray:
    """Bucket ids (distinct, sorted) of a prompt's n-grams; ``buckets`` is a power of two.

    Words and signs alone and in pairs, the first three words by place, and the letter 3- and
    4-grams of words. The hash is CRC-32, the same everywhere.
    """
    words = _ends(words_of(prompt), MOST_WORDS)
    whole = [f"w{word}" for word in words]
    whole += [f"p{a} {b}" for a, b in pairwise(words)]
    whole += [f"{place}{word}" for place, word in enumerate(words[:3])]
    hashes = [np.array([_hash(gram) for gram in whole], np.int64)]
    hashes += [_spelled(word) for word in words[:MOST_SPELLED]]
    return np.unique(np.concatenate(hashes) & (buckets - 1))


def tfidf(
    ids: Sequence[IntArray], buckets: int, rows: np.ndarray | None = None, least: int = 1
) -> tuple[Any, np.ndarray]:
    """Normalised tf-idf rows of bucket ids, sparse (n, buckets), and the idf as float16.

    Weights come from the rows of the mask ``rows`` (default: all), for buckets in at least
    ``least`` of them.
    """
    from scipy.sparse import csr_matrix  # takes long to import

    ends = np.cumsum([0, *map(len, ids)])
    there = csr_matrix((np.ones(ends[-1]), np.concatenate(ids), ends), shape=(len(ids), buckets))
    counted = there if rows is None else there[np.flatnonzero(rows)]
    seen = np.asarray(counted.sum(axis=0)).ravel()
    idf = np.log((1 + counted.shape[0]) / (1 + seen)) + 1
    idf = np.where(seen >= least, idf, 0).astype(np.float16)
    weighted = csr_matrix(there.multiply(idf.astype(np.float64)))
    norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    return csr_matrix(weighted.multiply(1 / np.maximum(norms, 1e-9)[:, None])), idf


def _hash(gram: str) -> int:
    return crc32(gram.encode("utf-8", "surrogatepass"))


def _remembered(function: Callable[[str], Any]) -> Callable[[str], Any]:
    """Cache a function of a word, except for very long words, which do not recur."""
    known = lru_cache(maxsize=MOST_REMEMBERED)(function)
    return lambda word: (known if len(word) <= LONGEST_REMEMBERED else function)(word)


@_remembered  # half of the work
def _spelled(word: str) -> IntArray:
    """Hashes of the letter 3- and 4-grams of a word with its boundaries."""
    spelled = f"<{word}>"
    starts = ((n, i) for n in (3, 4) for i in range(len(spelled) - n + 1))
    return np.array([_hash(f"c{spelled[i : i + n]}") for n, i in starts], np.int64)


@lru_cache(maxsize=1)
def counts(prompt: str) -> FloatArray:
    """Plain counts of a prompt, shape (``COUNTS``,): sizes as log(1 + x), cues as 0 or 1."""
    text = clipped(prompt)
    lower = text.lower()
    words = _WORDS.findall(lower)
    instruction, _, rest = text.partition("\n\n")
    number = _NUMBER.search(lower)
    distinct = set(words)
    sizes = [
        len(prompt) - len(text) + _letters(text), len(words), _letters(instruction),
        _letters(rest), text.count("\n"), text.count("?"), text.count(","), text.count('"'),
        sum(map(str.isdigit, text)),
        sum(map(str.isupper, text)), len(text) - len(text.encode("ascii", "ignore")),
        len(distinct), int(number[0]) if number else 0,
    ]  # fmt: skip
    cues = np.zeros(len(_CUES))
    cues[[cue for word in distinct for cue in _cues(word)]] = 1
    if _HYPHENED.search(lower):
        cues[_MAIL] = 1
    return np.concatenate([np.log1p(np.array(sizes, np.float64)), cues])


def _letters(text: str) -> int:
    """The length of a text in letters; a sign of a script without spaces counts as four."""
    return len(text) + (0 if text.isascii() else 3 * len(_SIGN.findall(text)))


@_remembered
def _cues(word: str) -> tuple[int, ...]:
    """Indices of the cues that a word matches."""
    return tuple(i for i, pattern in enumerate(_CUE_PATTERNS) if pattern.fullmatch(word))


COUNTS = len(counts(""))
