"""Trainings as experiments: a run trains a proxy, and its rows are predictions of the test split.

Also the cost of trained proxies on this machine. Rows hold a hash, true lengths and predictions, no
text, so that later steps (quality, scheduling, calibration) need neither texts nor training. The
proxy itself, megabytes, stays in ``results/proxies``, which is not committed.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ssjf.errors import InputError
from ssjf.experiments import paths, train, workloads
from ssjf.experiments.grid import experiment, rows
from ssjf.experiments.runs import bench
from ssjf.experiments.specs import CostRun, TrainingRun
from ssjf.experiments.store import digest
from ssjf.files import writable
from ssjf.proxy import io as proxies
from ssjf.proxy.base import Prediction
from ssjf.proxy.io import KINDS, ProxySpec, spec_of
from ssjf.workload.texts import Texts, fold_of, load_texts, prompt_hash

CLASS_PERCENTILES = (25, 50, 75, 99)  # of the SSJF authors' code
WARM_UP = 20  # untimed predictions: the first ones compile and fill caches


def proxy_folder(spec: TrainingRun) -> Path:
    """The folder of a run's trained proxy."""
    return paths.results() / "proxies" / spec.experiment / f"{spec.series}-{digest(spec)}"


def predictions(spec: TrainingRun) -> pd.DataFrame:
    """Train the proxy, unless that is done, and predict the test split or the given fold."""
    proxy, workload, out = _proxy_spec(spec), spec.workload, proxy_folder(spec)
    texts = _texts(workload, proxy)
    split, folds, fold = texts.splits(), workload.folds, workload.fold
    if folds is not None and fold is not None:
        split = np.array([fold_of(prompt, folds, fold) for prompt in texts.first_prompts], "U5")
    if spec.predicts is None and not out.is_dir():
        with writable(out.parent):
            out.parent.mkdir(parents=True, exist_ok=True)
        train.train(proxy, workload.data, out, texts, split)
    if workload.judged is not None:
        proxy = proxy.model_copy(update={"labels": ("output_tokens",)})
        texts = _of_llm(load_texts(workload.judged), workload.llm)
        split = texts.splits()
    taken = proxies.load(out) if spec.predicts is None else _Taken(spec.predicts, texts)
    predicted = rows_of(taken, proxy, texts, split, spec.seed)
    if not spec.quantiles:
        predicted = predicted.drop(columns=predicted.filter(regex=r"^q0\.").columns)
    if spec.predicts is not None:
        return predicted
    return predicted.assign(train_seconds=np.float32(proxies.card(out)["train_seconds"]))


def _of_llm(texts: Texts, llm: str | None, without: bool = False) -> Texts:
    """The rows of one LLM's answers, or of all others; all rows if ``llm`` is None."""
    if llm is None:
        return texts
    names = np.array(texts.model or [""] * len(texts))
    return texts.take((names == llm) != without)


def _texts(workload: workloads.Texts, proxy: ProxySpec) -> Texts:
    """The texts of a workload, with a model's own lengths if ``answers`` names an experiment."""
    if workload.answers is None:
        without = workload.judged is not None
        return train.load(proxy, workload.data,
                          keep=lambda texts: _of_llm(texts, workload.llm, without))  # fmt: skip
    answers = rows(workload.answers)
    own = answers[answers["sample"] == 0].set_index("prompt_hash")["output_tokens"]
    texts = load_texts(workload.data)
    found = own.reindex([prompt_hash(prompt) for prompt in texts.prompts]).to_numpy()
    kept = np.flatnonzero(~np.isnan(found))
    return replace(texts.take(kept), output_tokens=found[kept].astype(np.int64))


class _Taken:
    """A predictor that needs no training: a shipped proxy, or ``column:NAME`` of the data set."""

    def __init__(self, name: str, texts: Texts) -> None:
        column = name.removeprefix("column:")
        self.tokens = None if column == name else dict(
            zip(texts.prompts, train.lengths(texts, column), strict=True))  # fmt: skip
        self.proxy = proxies.load(name) if self.tokens is None else None

    def predict(self, prompts: Sequence[str]) -> Prediction:
        """As a proxy does."""
        if self.proxy is not None:
            return self.proxy.predict(prompts)
        tokens = np.array([(self.tokens or {})[prompt] for prompt in prompts])
        return Prediction(tokens, np.empty((len(tokens), 0)), ())


def rows_of(
    proxy: Any, spec: ProxySpec, texts: Texts, split: NDArray[np.str_], seed: int
) -> pd.DataFrame:
    """Make a row per labelled prompt of the test split.

    Classes are separated at the paper's percentiles of the training split's lengths.
    """
    lengths = np.stack([train.lengths(texts, name) for name in spec.labels], axis=1)
    known = ~np.isnan(lengths).any(axis=1)
    test = np.flatnonzero((split == "test") & known)
    prompts = texts.text(turn_only=spec.text == "turn")
    predicted = proxy.predict([prompts[i] for i in test])
    edges = np.percentile(lengths[(split == "train") & known, 0], CLASS_PERCENTILES)
    table = pd.DataFrame(
        {
            "prompt_hash": [prompt_hash(texts.prompts[i]) for i in test],
            "conversation": [prompt_hash(texts.first_prompts[i]) for i in test],
            "turn": texts.turn[test].astype(np.int16),
            "output_tokens": lengths[test, 0].astype(np.int32),
        }
    )
    for i in range(1, lengths.shape[1]):
        table[f"draw_{i}"] = lengths[test, i].astype(np.int32)
    for name, tokens in (("true", lengths[test, 0]), ("predicted", predicted.tokens)):
        table[f"{name}_class"] = np.searchsorted(edges, tokens, side="right").astype(np.int8)
    table["predicted_tokens"] = predicted.tokens.astype(np.float32)
    for level, values in zip(predicted.levels, predicted.quantiles.T, strict=True):
        table[f"q{level:g}"] = values.astype(np.float32)
    return _keyed(table, seed)


def _keyed(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    keys = {"x": np.float32(0), "seed": np.int32(seed), "run": np.int32(0)}
    return pd.DataFrame(keys, index=rows.index).join(rows)


def _proxy_spec(spec: TrainingRun) -> ProxySpec:
    """The proxy's spec, with the run's seed if its kind uses one."""
    config = spec.proxy.get("config", {}) | spec.config
    config = {key: _resolved(spec, value) for key, value in config.items()}
    if "seed" in KINDS[spec.proxy["kind"]].config.model_fields:
        config["seed"] = spec.seed
    return spec_of(spec.proxy | {"config": config}, f"experiment {spec.experiment}")


def _resolved(spec: TrainingRun, value: Any) -> Any:
    """Replace ``proxy:SERIES`` by the folder of that proxy, trained before in this experiment."""
    if not isinstance(value, str) or not value.startswith("proxy:"):
        return value
    series = value.removeprefix("proxy:")
    trained = paths.results() / "proxies"
    folders = sorted((trained / spec.experiment).glob(f"{series}-*"))
    if not folders:
        raise InputError(
            f"{spec.series} of {spec.experiment} needs the proxy {series}, which is not in "
            f"{trained}; delete its run and run the experiment again"
        )
    return str(folders[0])


def costs(spec: CostRun) -> pd.DataFrame:
    """Make a row per prompt length and batch size: see ``bench.proxy``."""
    return _keyed(pd.DataFrame(bench.proxy(str(_trained(spec)))))


def latencies(spec: CostRun) -> pd.DataFrame:
    """Make a row per prompt of the test split: milliseconds from text to prediction."""
    workload = spec.workload
    prompts = load_texts(workload.data).split("test").prompts[: workload.prompts]
    predict = proxies.load(_trained(spec)).predict
    for prompt in prompts[:WARM_UP]:
        predict([prompt])
    milliseconds = []
    for prompt in prompts:
        started = time.perf_counter()
        predict([prompt])
        milliseconds.append(1e3 * (time.perf_counter() - started))
    columns = {
        "prompt_hash": [prompt_hash(prompt) for prompt in prompts],
        "characters": np.array([len(prompt) for prompt in prompts], np.int32),
        "latency_ms": np.array(milliseconds, np.float32),
    }
    return _keyed(pd.DataFrame(columns))


def _trained(spec: CostRun) -> Path:
    """The folder of the series' proxy in the experiment that trained it."""
    of = str(spec.workload.of)
    trainings = [each for each in experiment(of).specs() if isinstance(each, TrainingRun)]
    for each in trainings:
        if each.series == spec.series and each.seed == 0 and proxy_folder(each).is_dir():
            return proxy_folder(each)
    raise InputError(
        f"the proxy {spec.series} is not in results/proxies; `ssjf run {of}` trains it once its "
        "run is deleted"
    )
