"""How many answers of a new LLM it takes to correct a predictor that was trained for another."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ssjf.proxy.calibration import Calibrator
from ssjf.request import FloatArray
from ssjf.study.correlations import spearman

PENALTY = 10.0  # of the ridge, on standardised features

Row = dict[str, Any]


def few_shot(
    prompts: Sequence[str], predicted: FloatArray, logs: FloatArray, examples: Sequence[int],
    draws: int, seed: int,
) -> Iterator[Row]:  # fmt: skip
    """Rows column, draw, k, method, mae_log, spearman of predicted logarithms corrected.

    ``predicted``: shape (n,); ``logs``: true ones of m LLMs, shape (n, m). In each draw a random
    part of the prompts, the largest of ``examples``, is there to learn from, and the first k of
    it are; the rest is the test, the same for every k.
    """
    features = standardised(prompts, predicted)
    for draw in range(draws):
        order = np.random.default_rng([seed, draw]).permutation(len(prompts))
        test = order[max(examples) :]
        for column, k in np.ndindex(logs.shape[1], len(examples)):
            known = order[: examples[k]]
            for method, found in corrected(predicted, features, logs[:, column], known):
                truth = logs[test, column]
                yield {
                    "column": column, "draw": draw, "k": examples[k], "method": method,
                    "mae_log": float(abs(found[test] - truth).mean()),
                    "spearman": float(spearman(found[test, None], truth[:, None])[0, 0]),
                }  # fmt: skip


def corrected(
    predicted: FloatArray, features: FloatArray, truth: FloatArray, known: np.ndarray
) -> Iterator[tuple[str, FloatArray]]:
    """(method, corrected logarithms (n,)) learned from the ``known`` rows of ``truth`` (n,)."""
    if not len(known):
        yield "as it is", predicted
        return
    left = truth[known] - predicted[known]
    yield "factor", predicted + np.median(left)
    online = Calibrator(max(10, len(known)), "isotonic")
    for i in known:
        online.observe(float(np.exp(predicted[i])), float(np.exp(truth[i])))
    yield "isotonic", np.log(online.calibrate(np.exp(predicted)))
    centred = features[known] - features[known].mean(axis=0)
    inner = centred.T @ centred + PENALTY * np.eye(features.shape[1])
    weights = np.linalg.solve(inner, centred.T @ left)
    away = (features - features[known].mean(axis=0)) @ weights
    yield "ridge", predicted + left.mean() + away


def standardised(prompts: Sequence[str], predicted: FloatArray) -> FloatArray:
    """What the ridge reads, shape (n, 5), each of mean 0 and deviation 1 over all n prompts.

    The predicted logarithm; logarithms of words, characters and lines; whether it asks a
    question. Standardising needs prompts, no lengths.
    """
    found = np.array(
        [
            [np.log1p(len(p.split())), np.log1p(len(p)), np.log1p(p.count("\n")), "?" in p]
            for p in prompts
        ],
        np.float64,
    )
    found = np.column_stack([predicted, found])
    return (found - found.mean(axis=0)) / np.maximum(found.std(axis=0), 1e-9)
