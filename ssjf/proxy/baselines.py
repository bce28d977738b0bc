"""Baseline proxies: a constant, the prompt's size, and tf-idf with ridge regression.

Training needs scikit-learn (the extra ``train``), predicting does not. Models are fitted on the
training rows; validation rows only give the residuals.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from ssjf.config import STRICT
from ssjf.proxy.base import NO_RESIDUALS, Arrays, LogProxy, TrainingRows, fit_residuals
from ssjf.proxy.light.features import words_of
from ssjf.request import FloatArray

VOCABULARY = "vocabulary.json"
BANDS = 5  # of predicted length, with residuals of their own
RIDGE = 1.0
LEAST_PROMPTS, MOST_TERMS = 2, 2**17  # prompts per term of the vocabulary; terms


class NoOptions(BaseModel):
    """Baselines have no options."""

    model_config = STRICT


@dataclass(frozen=True)
class PromptLengthProxy(LogProxy):
    """A monotone function of the prompt's size, linear between k knots and constant beyond.

    sizes: shape (k,), increasing, see ``sizes_of``. logs: shape (k,), predicted logarithms. With
    one knot every prompt gets the same length.
    """

    sizes: np.ndarray
    logs: np.ndarray

    def predicted_logs(self, prompts: Sequence[str]) -> FloatArray:
        return np.interp(sizes_of(prompts), self.sizes, self.logs)


@dataclass(frozen=True)
class TfidfRidgeProxy(LogProxy):
    """A linear function of tf-idf.

    idf, linear: shape (v,), inverse document frequency and coefficient of each term of the
    vocabulary. offset: shape (1,), the score of a prompt without a known term.
    """

    idf: np.ndarray
    linear: np.ndarray
    offset: np.ndarray
    vocabulary: list[str]

    def predicted_logs(self, prompts: Sequence[str]) -> FloatArray:
        return np.array([self._log(prompt) for prompt in prompts], np.float64)

    def _log(self, prompt: str) -> float:
        """Weighs terms like scikit-learn's ``TfidfVectorizer`` with ``sublinear_tf``."""
        counts = Counter(self._columns[t] for t in terms(prompt) if t in self._columns)
        at = np.fromiter(counts.keys(), np.int64, len(counts))
        weights = 1 + np.log(np.fromiter(counts.values(), np.float64, len(counts)))
        weights = weights * self.idf[at]
        weights /= max(float(np.sqrt(weights @ weights)), 1e-9)
        return float(self.offset[0] + weights @ self.linear[at].astype(np.float64))

    @cached_property
    def _columns(self) -> dict[str, int]:
        return {term: column for column, term in enumerate(self.vocabulary)}

    def files(self) -> dict[str, bytes]:
        """The vocabulary as a JSON list, in the order of the coefficients."""
        return {VOCABULARY: json.dumps(self.vocabulary, separators=(",", ":")).encode()}

    @classmethod
    def from_arrays(cls, arrays: Arrays, card: dict[str, Any]) -> "TfidfRidgeProxy":
        return cls(**arrays, vocabulary=json.loads((card["folder"] / VOCABULARY).read_bytes()))


def sizes_of(prompts: Sequence[str]) -> FloatArray:
    """The size of each prompt: log(1 + characters), shape (n,)."""
    return np.log1p([float(len(prompt)) for prompt in prompts])


def terms(prompt: str) -> list[str]:
    """The words and signs of a prompt, and its pairs of consecutive ones."""
    words = words_of(prompt)
    return words + [f"{one} {other}" for one, other in pairwise(words)]


def train_constant(rows: TrainingRows, config: NoOptions, keep: Path | None = None) -> LogProxy:
    """Predict the mean logarithm of the training rows."""
    log = np.array([rows.targets[rows.known(rows.train), 0].mean()])
    return _calibrated(PromptLengthProxy(**vars(NO_RESIDUALS), sizes=np.zeros(1), logs=log), rows)


def train_prompt_length(
    rows: TrainingRows, config: NoOptions, keep: Path | None = None
) -> LogProxy:
    """Fit an isotonic regression on the prompt's size, rising or falling, whichever fits better."""
    from sklearn.isotonic import IsotonicRegression

    known = rows.known(rows.train)
    sizes, logs = sizes_of(rows.prompts_of(known)), rows.targets[known, 0]
    fits = [IsotonicRegression(increasing=up).fit(sizes, logs) for up in (True, False)]
    best = max(fits, key=lambda fit: fit.score(sizes, logs))
    knots = {"sizes": best.X_thresholds_, "logs": best.y_thresholds_}
    return _calibrated(PromptLengthProxy(**vars(NO_RESIDUALS), **knots), rows)


def train_tfidf_ridge(rows: TrainingRows, config: NoOptions, keep: Path | None = None) -> LogProxy:
    """Fit a ridge regression of the logarithm on tf-idf."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    known = rows.known(rows.train)
    prompts, logs = rows.prompts_of(known), rows.targets[known, 0]
    vectorizer = TfidfVectorizer(
        analyzer=terms, sublinear_tf=True, min_df=LEAST_PROMPTS, max_features=MOST_TERMS
    )
    try:
        ridge = Ridge(alpha=RIDGE).fit(vectorizer.fit_transform(prompts), logs)
        vocabulary, idf = vectorizer.get_feature_names_out().tolist(), vectorizer.idf_
        linear, offset = ridge.coef_, ridge.intercept_
    except ValueError:  # no term is in so many prompts
        vocabulary, idf, linear, offset = [], np.zeros(0), np.zeros(0), logs.mean()
    proxy = TfidfRidgeProxy(
        **vars(NO_RESIDUALS), idf=idf.astype(np.float32), linear=linear.astype(np.float32),
        offset=np.array([float(offset)]), vocabulary=vocabulary,
    )  # fmt: skip
    return _calibrated(proxy, rows)


def _calibrated(proxy: LogProxy, rows: TrainingRows) -> LogProxy:
    """Add the residuals of the validation rows."""
    held = rows.known(rows.validation)
    logs = proxy.predicted_logs(rows.prompts_of(held))
    return replace(proxy, **vars(fit_residuals(logs, rows.draws[held], BANDS)))
