"""Trains a proxy on texts: split, fit, judge on the test split, save as a folder."""

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssjf.analysis.quality import interval_coverage, noise_ceiling, with_intervals
from ssjf.errors import InputError, unknown
from ssjf.experiments.paths import made_with
from ssjf.experiments.store import digest
from ssjf.proxy import io as proxy_folder
from ssjf.proxy.base import Prediction, Proxy, TrainingRows
from ssjf.proxy.io import KINDS, ProxySpec
from ssjf.request import FloatArray
from ssjf.workload.texts import (
    Texts,
    check_trainable,
    joined,
    load_texts,
    normalised,
    prompt_hash,
)

LEAST_SPREAD = 1e-3  # of logarithms that are standardised
LEAST_ROWS = 50  # in the training split; a fifth of it in each other split


def train(
    spec: ProxySpec, data: str, out: Path, texts: Texts | None = None,
    split: NDArray[np.str_] | None = None, tokenizer: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train a proxy, judge it on the test split, save it to ``out``; return its card.

    A killed training resumes from a folder beside ``out``. ``texts`` are those of ``data`` (see
    ``load``) if already read; ``split`` (n,) overrides their splits. ``tokenizer`` counts tokens of
    answers if the data have no lengths.
    """
    proxy_folder.check_new(out)
    if texts is None:
        texts = load(spec, data, tokenizer)
    split = texts.splits() if split is None else split
    keep = out.with_name(f"{out.name}.training")
    proxy, card = fit(spec, data, texts, split, keep)
    card |= {"length_tokenizer": tokenizer} if tokenizer else {}
    proxy_folder.save(out, spec.kind, proxy, card)
    shutil.rmtree(keep, ignore_errors=True)
    return card


def load(
    spec: ProxySpec, data: str, tokenizer: str | None = None,
    keep: Callable[[Texts], Texts] = lambda texts: texts,
) -> Texts:  # fmt: skip
    """Load the texts of a name or file, or of several joined by ``+`` (see ``_mixed``).

    ``keep`` filters the rows of each.
    """
    names = data.split("+")
    if len(names) == 1 or Path(data).exists():
        return keep(load_texts(data, tokenizer=tokenizer, label=label_to_load(spec)))
    sets = {name: keep(load_texts(name, tokenizer=tokenizer)) for name in names}
    return _mixed(sets, spec.labels[0])


def _mixed(sets: Mapping[str, Texts], label: str) -> Texts:
    """Make one row per prompt of each set, whose name becomes ``model``.

    To teach the order of prompts and not the level of each LLM, its length is the mean of
    logarithms standardised per LLM, on the scale of the first set's ``label``.
    """
    first = next(iter(sets.values()))
    scale = np.log(lengths(first, label)[first.splits() == "train"])
    low, spread = np.nanmean(scale), np.nanstd(scale)
    parts = []
    for name, texts in sets.items():
        kept, of = np.unique(_rows_by_prompt(texts), return_inverse=True)
        mean = np.bincount(of, _standardised(name, texts)) / np.bincount(of)
        tokens = np.rint(np.exp(low + spread * mean)).clip(1)
        extra = {key: texts.extra[key][kept] if texts is first else np.full(len(kept), np.nan)
                 for key in first.extra}  # fmt: skip
        part = replace(texts.take(kept), output_tokens=tokens, model=[name] * len(kept))
        parts.append(replace(part, extra=extra))
    return joined(parts)


def _rows_by_prompt(texts: Texts) -> list[int]:
    """For each row, the first row with the same prompt and history."""
    first: dict[str, int] = {}
    keys = map(normalised, texts.text(turn_only=False))
    return [first.setdefault(key, i) for i, key in enumerate(keys)]


def _standardised(name: str, texts: Texts) -> FloatArray:
    """Logarithms of lengths, standardised per model to the training split."""
    check_trainable(texts)
    logs, train = np.log(texts.output_tokens), texts.splits() == "train"
    models = np.array(texts.model or [""] * len(texts))
    for model in np.unique(models):
        of = models == model
        _check_count(name, int((of & train).sum()), f"rows of {model or 'its model'}", "train", 2)
        known = logs[of & train]
        logs[of] = (logs[of] - known.mean()) / max(known.std(), LEAST_SPREAD)
    return logs


def fit(
    spec: ProxySpec, data: str, texts: Texts, split: NDArray[np.str_], keep: Path
) -> tuple[Proxy, dict[str, Any]]:
    """Fit a proxy; return it with its card. ``keep`` is a folder for checkpoints."""
    check_trainable(texts)
    draws = np.stack([_logs(texts, name) for name in spec.labels], axis=1)
    main = np.where(np.isnan(draws).any(axis=1), np.nan, draws.mean(axis=1))
    labelled = ~np.isnan(main)
    if spec.elsewhere:
        main = np.where(_in_labelled_sets(texts, labelled), main, _logs(texts, "output_tokens"))
    targets = np.stack([main, *(_logs(texts, name) for name in spec.also)], axis=1)
    masks = {name: split == name for name in ("train", "val", "test")}
    prompts = texts.text(turn_only=spec.text == "turn")
    cut_off = np.nan_to_num(texts.extra["cut_off"]) > 0 if "cut_off" in texts.extra else None
    rows = TrainingRows(prompts, targets, draws, masks["train"], masks["val"], cut_off)
    test = rows.known(masks["test"] & labelled)
    counts = {name: len(rows.known(mask)) for name, mask in masks.items()} | {"test": len(test)}
    for name, mask in masks.items():
        least = LEAST_ROWS if name == "train" else LEAST_ROWS // 5
        _check_count(data, int((mask & labelled).sum()), "labelled rows", name, least)
    _check_columns(data, targets[masks["train"]], (spec.labels[0], *spec.also))
    data_hash = _data_hash(texts, [*draws.T, *targets[:, 1:].T], split)
    # equal spec and rows: the same training
    checkpoints = keep / digest({"spec": spec.model_dump(), "data": data_hash})
    started = time.perf_counter()
    proxy = KINDS[spec.kind].train(rows, spec.config, checkpoints)
    seconds = time.perf_counter() - started
    card = {
        "data": data,
        "data_hash": data_hash,
        "labels": list(spec.labels),
        "also": list(spec.also),
        "text": spec.text,
        "config": spec.config.model_dump(),
        "rows": counts,
        "train_seconds": round(seconds, 1),
        "test": judge(proxy.predict([prompts[i] for i in test]), np.exp(draws[test])),
        "made_with": made_with(),
    }
    card |= proxy.metadata() if hasattr(proxy, "metadata") else {}
    return proxy, card


def _in_labelled_sets(texts: Texts, labelled: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which rows of a mixture belong to a set that has labels?"""
    names = np.array(texts.model or [""] * len(texts))
    return np.isin(names, names[labelled])


def label_to_load(spec: ProxySpec) -> str | None:
    """The label to load as ``output_tokens``, unless the spec uses ``output_tokens`` itself."""
    return None if "output_tokens" in (*spec.labels, *spec.also) else spec.labels[0]


def lengths(texts: Texts, name: str) -> FloatArray:
    """A column of lengths in tokens, NaN where missing."""
    if name == "output_tokens":
        tokens = texts.output_tokens.astype(np.float64)
    elif name in texts.extra:
        texts.labelled(name)  # refuses lengths that are none
        tokens = texts.extra[name]
    else:
        raise unknown("label", name, ["output_tokens", *texts.extra])
    return np.where(tokens >= 1, tokens, np.nan)


def _logs(texts: Texts, name: str) -> FloatArray:
    return np.log(lengths(texts, name))


def _check_count(data: str, count: int, what: str, split: str, least: int) -> None:
    if count < least:
        raise InputError(
            f"{data} has {count} {what} in its {split} split; training needs at least {least}"
        )


def _check_columns(data: str, targets: FloatArray, names: Sequence[str]) -> None:
    """Check that each column of lengths varies in the training split."""
    for name, column in zip(names, targets.T, strict=True):
        known = column[~np.isnan(column)]
        _check_count(data, len(known), f"rows with {name}", "train", LEAST_ROWS)
        if known.min() == known.max():
            raise InputError(f"{data}: every {name} is the same; there is nothing to learn")


def _data_hash(texts: Texts, columns: list[FloatArray], split: NDArray[np.str_]) -> str:
    """Hash the prompts and log lengths of the training, independent of their file."""
    labels = [np.nan_to_num(column, nan=-1).round(6).tolist() for column in columns]
    learned = {"prompts": [prompt_hash(p) for p in texts.prompts], "labels": labels}
    if not np.array_equal(split, texts.splits()):
        learned["split"] = split.tolist()
    return digest(learned)


def judge(predicted: Prediction, draws: FloatArray) -> dict[str, Any]:
    """Judge predictions of a test split: metrics as [value, low, high]; ``draws`` (n, m) in tokens.

    The first draw is the truth; with several draws, ranks of their mean are judged too.
    """
    names = ["mae", "rmse", "r2", "accuracy", "macro_f1", "within_one_class", "kendall_tau_b",
             "spearman", "pairs_2x"]  # fmt: skip
    quality = _intervals(np.rint(draws[:, 0]), predicted.tokens, names)
    if draws.shape[1] > 1:
        mean = _intervals(draws.mean(axis=1), predicted.tokens, ["kendall_tau_b", "spearman"])
        quality |= {f"{name}_of_mean": value for name, value in mean.items()}
        differ = np.ptp(draws, axis=0).all()
        ceiling = noise_ceiling(draws) if differ else np.nan
        quality["noise_ceiling_spearman"] = [ceiling]
    low, high = (predicted.quantiles[:, predicted.levels.index(p)] for p in (0.1, 0.9))
    quality["coverage_80"] = [interval_coverage(draws[:, 0], low, high)]
    return {name: [*map(_rounded, values)] for name, values in quality.items()}


def _rounded(value: float) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None  # JSON has no NaN


def _intervals(truth: FloatArray, tokens: FloatArray, names: list[str]) -> dict[str, list[float]]:
    frame = with_intervals(truth, tokens, names)
    return {row.metric: [row.value, row.low, row.high] for row in frame.itertuples()}
