"""Training the baselines. The linear one needs scikit-learn (the extra ``train``).

Everything is fitted on the training rows; the validation rows give the residuals alone.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ssjf.proxy.baselines import ConstantProxy, PromptLengthProxy, sizes_of
from ssjf.proxy.baselines_config import ConstantConfig, PromptLengthConfig, TfidfRidgeConfig
from ssjf.proxy.baselines_tfidf import TfidfRidgeProxy, row, terms
from ssjf.proxy.conformal import LEVELS, spread
from ssjf.proxy.training import TrainingRows
from ssjf.request import FloatArray

NO_SPREAD = np.zeros(0), np.zeros((1, len(LEVELS)))


def train_constant(
    rows: TrainingRows, config: ConstantConfig, keep: Path | None = None
) -> ConstantProxy:
    """The mean logarithm of the training rows, for all."""
    log = rows.targets[rows.known(rows.train), 0].mean()
    held = rows.known(rows.validation)
    around = spread(np.full(len(held), log), rows.draws[held], 1)
    return ConstantProxy(np.array([log]), around.edges, around.residuals)


def train_prompt_length(
    rows: TrainingRows, config: PromptLengthConfig, keep: Path | None = None
) -> PromptLengthProxy:
    """Isotonic regression on the prompt's size, rising or falling: whichever errs less."""
    known = rows.known(rows.train)
    sizes, logs = monotone(sizes_of([rows.prompts[i] for i in known]), rows.targets[known, 0])
    held = rows.known(rows.validation)
    found = np.interp(sizes_of([rows.prompts[i] for i in held]), sizes, logs)
    around = spread(found, rows.draws[held], config.bands)
    return PromptLengthProxy(sizes, logs, around.edges, around.residuals)


def monotone(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The monotone function of least squares, rising or falling, as knots (k,) and values (k,).

    Where y does not follow x at all both are nearly flat, and so is what is returned.
    """
    from scipy.optimize import isotonic_regression

    knots, at, weights = np.unique(x, return_inverse=True, return_counts=True)
    means = np.bincount(at, y) / weights
    fits = [isotonic_regression(means, weights=weights, increasing=up).x for up in (True, False)]
    best = min(fits, key=lambda fit: float(weights @ (fit - means) ** 2))
    # Within a flat stretch only its two ends are needed.
    ends = np.ones(len(best), bool)
    ends[1:-1] = (best[1:-1] != best[:-2]) | (best[1:-1] != best[2:])
    return knots[ends], best[ends]


def train_tfidf_ridge(
    rows: TrainingRows, config: TfidfRidgeConfig, keep: Path | None = None
) -> TfidfRidgeProxy:
    """Ridge regression of the logarithm on tf-idf."""
    known, held = rows.known(rows.train), rows.known(rows.validation)
    vocabulary, idf = weighed([rows.prompts[i] for i in known], config)
    linear, offset = np.zeros(len(vocabulary), np.float32), rows.targets[known, 0].mean()
    if vocabulary:  # else no two prompts have a word in common
        tfidf = matrix([rows.prompts[i] for i in known], vocabulary, idf)
        linear, offset = _ridge(tfidf, rows.targets[known, 0], config.ridge)
    proxy = TfidfRidgeProxy(vocabulary, idf, linear, np.array([offset]), *NO_SPREAD)
    logs = proxy.logs([rows.prompts[i] for i in held])
    around = spread(logs, rows.draws[held], config.bands)
    return replace(proxy, edges=around.edges, residuals=around.residuals)


def weighed(prompts: Sequence[str], config: TfidfRidgeConfig) -> tuple[list[str], np.ndarray]:
    """The terms that are kept, in order, and their smoothed inverse document frequency (v,)."""
    seen = Counter(term for prompt in prompts for term in set(terms(prompt)))
    often = sorted((-count, term) for term, count in seen.items() if count >= config.least_prompts)
    vocabulary = sorted(term for _, term in often[: config.most_terms])
    counts = np.array([seen[term] for term in vocabulary], np.float64)
    return vocabulary, (np.log((1 + len(prompts)) / (1 + counts)) + 1).astype(np.float32)


def matrix(prompts: Sequence[str], vocabulary: list[str], idf: np.ndarray) -> Any:
    """The rows of tf-idf as a sparse matrix, shape (n, v)."""
    from scipy.sparse import csr_matrix

    columns = {term: column for column, term in enumerate(vocabulary)}
    at, weights = zip(*(row(prompt, columns, idf) for prompt in prompts), strict=True)
    ends = np.cumsum([0, *map(len, at)])
    shape = len(prompts), len(vocabulary)
    return csr_matrix((np.concatenate(weights), np.concatenate(at), ends), shape=shape)


def _ridge(tfidf: Any, logs: FloatArray, ridge: float) -> tuple[np.ndarray, float]:
    from sklearn.linear_model import Ridge

    model = Ridge(alpha=ridge).fit(tfidf, logs)
    return model.coef_.astype(np.float32), float(model.intercept_)
