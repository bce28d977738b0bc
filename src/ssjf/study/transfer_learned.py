"""Predictors trained on one LLM's lengths, for all LLMs at once, and tested on held-out prompts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssjf.proxy.baselines_config import TfidfRidgeConfig
from ssjf.proxy.baselines_training import matrix, weighed
from ssjf.request import FloatArray, IntArray


def folds(n: int, count: int, seed: int) -> IntArray:
    """The fold of each of n prompts, shape (n,), sizes as equal as can be."""
    return np.random.default_rng(seed).permutation(n) % count


def out_of_fold(
    prompts: Sequence[str], logs: FloatArray, fold: IntArray, config: TfidfRidgeConfig
) -> FloatArray:
    """Predicted logarithms, shape (n, m), of m LLMs' lengths ``logs`` (n, m).

    Each prompt is predicted by a model that was trained without its fold: ridge regression on
    tf-idf, whose terms and weights come from the training prompts alone.
    """
    found = np.zeros_like(logs)
    for k in np.unique(fold):
        rest, held = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        vocabulary, idf = weighed([prompts[i] for i in rest], config)
        tfidf = matrix([prompts[i] for i in rest], vocabulary, idf)
        asked = matrix([prompts[i] for i in held], vocabulary, idf)
        found[held] = ridge(tfidf, logs[rest], asked, config.ridge)
    return found


def ridge(x: Any, y: FloatArray, asked: Any, penalty: float) -> FloatArray:
    """Ridge regression with a free intercept of each column of y (n, m) on sparse x (n, v).

    Predictions for ``asked`` (k, v): shape (k, m). Solved in the n prompts, not the v terms, by
    one factorisation for all columns.
    """
    mean = np.asarray(x.mean(axis=0)).ravel()
    among, across = _centred(x, x, mean), _centred(asked, x, mean)
    solved = np.linalg.solve(among + penalty * np.eye(x.shape[0]), y - y.mean(axis=0))
    return y.mean(axis=0) + across @ solved


def _centred(a: Any, b: Any, mean: FloatArray) -> FloatArray:
    """Products of the rows of a and b, both less ``mean``."""
    one, other = (np.asarray(part @ mean).ravel() for part in (a, b))
    return (a @ b.T).toarray() - one[:, None] - other[None, :] + mean @ mean
