"""Training as an experiment: a run is a proxy trained, its rows are what it says of the test split.

Rows hold a hash, true lengths and predictions, no text, so that whatever follows (quality,
scheduling, calibration) needs neither the texts nor a training. The proxy itself, megabytes, is
left in ``results/proxies``, which is not committed.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ssjf.errors import InputError
from ssjf.experiments import paths, train
from ssjf.experiments.specs import TrainingRun
from ssjf.experiments.store import digest
from ssjf.experiments.workloads import Texts
from ssjf.files import writable
from ssjf.proxy import io as folder
from ssjf.proxy.io import KINDS, ProxySpec, spec_of
from ssjf.workload.texts import Texts as Prompts
from ssjf.workload.texts import fold_of, load_texts, prompt_hash

CLASS_PERCENTILES = (25, 50, 75, 99)  # of the SSJF authors' code
TRAINED = re.compile(r"proxy:(.+)")  # in a configuration: the proxy of another series


def proxy_folder(spec: TrainingRun) -> Path:
    """Where the proxy of a run lies once it is trained."""
    return paths.proxies() / spec.experiment / f"{spec.series}-{digest(spec)}"


def predictions(spec: TrainingRun) -> pd.DataFrame:
    """Train (unless that was done) and predict the test split, or the fold that is asked for."""
    asked, workload = _asked(spec), spec.workload
    texts = load_texts(workload.data, label=train.label_to_load(asked))
    split = _split(texts, workload)
    out = proxy_folder(spec)
    if not out.is_dir():
        with writable(out.parent):
            out.parent.mkdir(parents=True, exist_ok=True)
        train.train(asked, workload.data, out, texts, split)
    told = rows_of(folder.load(out), asked, texts, split, spec.seed)
    return told.assign(train_seconds=np.float32(folder.card(out)["train_seconds"]))


def _split(texts: Prompts, workload: Texts) -> NDArray[np.str_]:
    folds, fold = workload.folds, workload.fold
    if folds is None or fold is None:
        return texts.splits()
    return np.array([fold_of(prompt, folds, fold) for prompt in texts.first_prompts], "U5")


def rows_of(
    proxy: Any, asked: ProxySpec, texts: Prompts, split: NDArray[np.str_], seed: int
) -> pd.DataFrame:
    """One row per labelled prompt of the test split.

    Classes part at the paper's percentiles of the training split's lengths.
    """
    lengths = np.stack([train.lengths(texts, name) for name in asked.labels], axis=1)
    known = ~np.isnan(lengths).any(axis=1)
    test = np.flatnonzero((split == "test") & known)
    read = texts.text(turn_only=asked.text == "turn")
    llms = [texts.model[i] for i in test] if texts.model else None
    said = proxy.predict([read[i] for i in test], llms)
    edges = np.percentile(lengths[(split == "train") & known, 0], CLASS_PERCENTILES)
    draws = {f"draw_{i}": lengths[test, i].astype(np.int32) for i in range(1, lengths.shape[1])}
    quantiles = {
        f"q{level:g}": said.quantiles[:, i].astype(np.float32)
        for i, level in enumerate(said.levels)
    }
    return pd.DataFrame(
        {
            "x": np.float32(0),
            "seed": np.int32(seed),
            "run": np.int32(0),
            "prompt_hash": [prompt_hash(texts.prompts[i]) for i in test],
            "conversation": [prompt_hash(texts.first_prompts[i]) for i in test],
            "turn": texts.turn[test].astype(np.int16),
            "output_tokens": lengths[test, 0].astype(np.int32),
            **draws,
            "true_class": _classes(edges, lengths[test, 0]),
            "predicted_class": _classes(edges, said.tokens),
            "predicted_tokens": said.tokens.astype(np.float32),
            **quantiles,
        }
    )


def _classes(edges: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    return np.searchsorted(edges, tokens, side="right").astype(np.int8)


def _asked(spec: TrainingRun) -> ProxySpec:
    """The proxy's spec with the run's seed, where its kind draws at random."""
    given = dict(spec.proxy)
    chosen = given.get("config", {}) | spec.config
    config = {key: _resolved(spec, value) for key, value in chosen.items()}
    if "seed" in KINDS[given["kind"]].config.model_fields:
        config["seed"] = spec.seed
    return spec_of(given | {"config": config}, f"experiment {spec.experiment}")


def _resolved(spec: TrainingRun, value: Any) -> Any:
    """``proxy:SERIES`` as the folder of that series' proxy, trained before in this experiment."""
    named = TRAINED.fullmatch(value) if isinstance(value, str) else None
    if not named:
        return value
    found = sorted((paths.proxies() / spec.experiment).glob(f"{named[1]}-*"))
    if not found:
        raise InputError(
            f"{spec.series} of {spec.experiment} needs the proxy {named[1]}, which is not in "
            f"{paths.proxies()}; delete its run and run the experiment again"
        )
    return str(found[0])
