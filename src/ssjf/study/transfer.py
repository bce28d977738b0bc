"""Transfer between LLMs: what is one LLM's length worth for another's, on the same prompts?

The engine of the experiment ``transfer``. It needs the lengths of many LLMs (see ``llm_lengths``);
its rows hold numbers and the names of LLMs, no text.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from ssjf.errors import unknown
from ssjf.proxy.baselines_config import TfidfRidgeConfig
from ssjf.proxy.spread import tokens
from ssjf.request import FloatArray, IntArray
from ssjf.study import llm_lengths
from ssjf.study.correlations import spearman, spearman_in_folds
from ssjf.study.llm_lengths import LlmLengths
from ssjf.study.transfer_agreement import agreement
from ssjf.study.transfer_few_shot import few_shot
from ssjf.study.transfer_learned import folds, out_of_fold
from ssjf.study.transfer_rows import ALL, LISTED, Named, resampled_rows

Spec = dict[str, Any]


def measured(spec: Spec) -> pd.DataFrame:
    """The rows of a run: what ``measure`` names, of the lengths of many LLMs."""
    if spec["measure"] not in MEASURES:
        raise unknown("measure", spec["measure"], MEASURES)
    rows = MEASURES[spec["measure"]](llm_lengths.load(), spec)
    for name in rows.columns:
        if rows[name].dtype == np.float64:
            rows[name] = rows[name].astype(np.float32)
    return rows


def _learned(data: LlmLengths, spec: Spec) -> pd.DataFrame:
    """The listed LLMs: a predictor trained on one, ordering another's requests."""
    logs = np.log(data.output_tokens[:, data.at(spec["llms"])])
    fold, found = _cross_validated(data.prompts, logs, spec)

    def matrix(rows: IntArray) -> Named:
        across = spearman_in_folds(found[rows], logs[rows], fold[rows])
        loss = np.diag(across)[None, :] - across
        return dict(_pairs(spec["llms"], across, loss))

    return resampled_rows(matrix, len(logs), spec["resamples"], spec["seed"])


def _pairs(llms: list[str], across: FloatArray, loss: FloatArray) -> Iterator[tuple[Any, float]]:
    """Each pair's correlation and what it loses against the LLM's own predictor; the medians."""
    for i, j in np.ndindex(across.shape):
        yield ("spearman", llms[i], llms[j]), float(across[i, j])
        if i != j:
            yield ("loss", llms[i], llms[j]), float(loss[i, j])
    others = ~np.eye(len(across), dtype=bool)
    yield ("spearman", LISTED, "own"), float(np.median(np.diag(across)))
    yield ("spearman", LISTED, "another"), float(np.median(across[others]))
    yield ("loss", LISTED, "another"), float(np.median(loss[others]))


def _builtin(data: LlmLengths, spec: Spec) -> pd.DataFrame:
    """Every LLM's requests ordered by the shipped proxy, and by one trained on its own lengths."""
    logs = np.log(data.output_tokens)
    fold, own = _cross_validated(data.prompts, logs, spec)
    shipped = _shipped(data.prompts)[:, None]
    listed = data.at(spec["llms"])

    def ordered(rows: IntArray) -> Named:
        parts = [rows[fold[rows] == k] for k in range(spec["folds"])]
        by_own = np.mean([_each(own[part], logs[part]) for part in parts], axis=0)
        by_shipped = spearman_in_folds(shipped[rows], logs[rows], fold[rows])[0]
        found = {
            ("spearman", "own"): by_own,
            ("spearman", "shipped"): by_shipped,
            ("gain", "shipped"): by_shipped - by_own,
            ("factor", "shipped"): np.exp(np.median(logs[rows] - shipped[rows], axis=0)),
        }
        named = {
            (*key, llm): float(value)
            for key, values in found.items()
            for llm, value in zip(data.llms, values, strict=True)
        }
        named |= {(*key, ALL): float(np.median(values)) for key, values in found.items()}
        return named | {
            (*key, LISTED): float(np.median(values[listed])) for key, values in found.items()
        }

    return resampled_rows(ordered, len(logs), spec["resamples"], spec["seed"])


def _each(predicted: FloatArray, logs: FloatArray) -> FloatArray:
    """Spearman's rho of each column with the column of the same place, shape (m,)."""
    return np.diag(spearman(predicted, logs))


def _predictions(data: LlmLengths, spec: Spec) -> pd.DataFrame:
    """The listed LLMs: per prompt the true length and the one predicted without its fold."""
    lengths = data.output_tokens[:, data.at(spec["llms"])]
    _, found = _cross_validated(data.prompts, np.log(lengths), spec)
    n = len(data.prompts)
    return pd.DataFrame(
        {
            "llm": np.repeat(spec["llms"], n),
            "prompt": np.tile(np.arange(n, dtype=np.int16), len(spec["llms"])),
            "output_tokens": lengths.T.ravel().astype(np.int16),
            "predicted_tokens": tokens(found).T.ravel(),
        }
    )


def _few_shot(data: LlmLengths, spec: Spec) -> pd.DataFrame:
    """The shipped proxy corrected by k examples of a listed LLM."""
    logs = np.log(data.output_tokens[:, data.at(spec["llms"])])
    rows = pd.DataFrame(
        few_shot(data.prompts, _shipped(data.prompts), logs, spec["examples"], spec["draws"],
                 spec["seed"])
    )  # fmt: skip
    rows.insert(0, "llm", np.array(spec["llms"])[rows.pop("column")])
    return rows.astype({"draw": np.int16, "k": np.int16})


def _cross_validated(
    prompts: list[str], logs: FloatArray, spec: Spec
) -> tuple[IntArray, FloatArray]:
    fold = folds(len(prompts), spec["folds"], spec["seed"])
    return fold, out_of_fold(prompts, logs, fold, TfidfRidgeConfig(**spec["tfidf"]))


def _shipped(prompts: list[str]) -> FloatArray:
    """Logarithms that the shipped proxy predicts, shape (n,)."""
    from ssjf.proxy import folder

    return np.log(folder.load(folder.BUILTIN).predict(prompts).tokens)


MEASURES: dict[str, Callable[[LlmLengths, Spec], pd.DataFrame]] = {
    "agreement": agreement,
    "learned": _learned,
    "builtin": _builtin,
    "predictions": _predictions,
    "few-shot": _few_shot,
}
