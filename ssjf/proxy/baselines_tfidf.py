"""The usual baseline: tf-idf of words and pairs of words, and one linear score.

Its vocabulary is a file of its own, ``vocabulary.json``: a list of the terms, in the order of
their weights.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ssjf.proxy.base import Prediction
from ssjf.proxy.baselines import checked, predicted
from ssjf.proxy.light.features import clipped
from ssjf.request import FloatArray

VOCABULARY = "vocabulary.json"
_WORDS = re.compile(r"\w+|[^\w\s]")


def terms(prompt: str) -> list[str]:
    """The words and signs of a prompt in lower case, and each two that follow one another.

    A long prompt is read at both ends (see ``features.clipped``).
    """
    words = _WORDS.findall(clipped(prompt).lower())
    return words + [f"{one} {other}" for one, other in pairwise(words)]


def row(prompt: str, columns: dict[str, int], idf: np.ndarray) -> tuple[np.ndarray, FloatArray]:
    """(columns, weights) of the known terms: (1 + log count) idf, scaled to a norm of 1."""
    known = Counter(columns[term] for term in terms(prompt) if term in columns)
    at = np.fromiter(known.keys(), np.int64, len(known))
    weights = (1 + np.log(np.fromiter(known.values(), np.float64, len(known)))) * idf[at]
    return at, weights / max(float(np.sqrt(weights @ weights)), 1e-9)


@dataclass(frozen=True)
class TfidfRidgeProxy:
    """A linear score of v terms.

    vocabulary: the terms. idf, linear: shape (v,), what a term weighs in its row and in the
    score. offset: shape (1,), the score of a prompt without a known term. edges, residuals: as
    in ``Spread``.
    """

    vocabulary: list[str]
    idf: np.ndarray
    linear: np.ndarray
    offset: np.ndarray
    edges: np.ndarray
    residuals: np.ndarray

    def predict(self, prompts: Sequence[str], llms: Sequence[str] | None = None) -> Prediction:
        """Lengths in tokens: the exp of the score, and quantiles."""
        return predicted(self.logs(prompts), self.edges, self.residuals)

    def logs(self, prompts: Sequence[str]) -> FloatArray:
        """The scores, predicted logarithms, shape (n,)."""
        return np.array([self._log(prompt) for prompt in prompts], np.float64)

    def _log(self, prompt: str) -> float:
        at, weights = row(prompt, self._columns, self.idf)
        return float(self.offset[0] + weights @ self.linear[at].astype(np.float64))

    @cached_property
    def _columns(self) -> dict[str, int]:
        return {term: column for column, term in enumerate(self.vocabulary)}

    def arrays(self) -> dict[str, np.ndarray]:
        """The numbers that are stored, by name."""
        names = ("idf", "linear", "offset", "edges", "residuals")
        return {name: getattr(self, name) for name in names}

    def files(self) -> dict[str, bytes]:
        """The terms as JSON."""
        return {VOCABULARY: json.dumps(self.vocabulary, separators=(",", ":")).encode()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], card: dict[str, Any]) -> "TfidfRidgeProxy":
        """The inverse of ``arrays`` and ``files``; ValueError for what does not fit together."""
        vocabulary = _read(card["folder"] / VOCABULARY)
        many = (len(vocabulary),)
        return cls(vocabulary, **checked(arrays, idf=many, linear=many, offset=(1,)))


def _read(path: Path) -> list[str]:
    found = json.loads(path.read_bytes()) if path.is_file() else None
    if not isinstance(found, list) or not all(isinstance(term, str) for term in found):
        raise ValueError(f"{VOCABULARY} is not a list of terms")
    if len(set(found)) != len(found):
        raise ValueError(f"{VOCABULARY} holds a term twice")
    return found
