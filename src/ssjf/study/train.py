"""From texts to a proxy folder: split, fit, judge on the test split, save."""

import time
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ssjf.errors import InputError, unknown
from ssjf.proxy import folder as proxy_folder
from ssjf.proxy.light_training import LightConfig, fit
from ssjf.request import FloatArray
from ssjf.study import quality, quality_intervals
from ssjf.study.sidecar import made_with
from ssjf.study.store import digest
from ssjf.workload.options import read_toml
from ssjf.workload.splits import prompt_hash
from ssjf.workload.texts import Texts, check_trainable, load_texts

LEAST_ROWS = 50  # of the training split, and a fifth of it of each other split


@dataclass(frozen=True)
class ProxySpec:
    """A proxy as asked for: its kind, whose lengths it learns, and its configuration.

    ``labels`` are columns of lengths of one model's answers, several draws of the same;
    ``also`` are lengths of other models' answers. ``output_tokens`` is a column like others.
    """

    kind: str
    labels: tuple[str, ...]
    also: tuple[str, ...]
    config: LightConfig


def read_spec(name: str) -> ProxySpec:
    """A spec that comes with the package, by name, or a TOML file of one's own."""
    path = Path(name)
    if path.suffix != ".toml":
        path = Path(str(resources.files("ssjf.proxy") / "specs" / f"{name}.toml"))
        if not path.is_file():
            known = [p.stem for p in path.parent.glob("*.toml")]
            raise unknown("proxy spec", name, [*known, "a .toml file"])
    return _spec(path, read_toml("proxy spec", path))


def _spec(path: Path, given: dict[str, Any]) -> ProxySpec:
    for key in given:
        if key not in ("kind", "labels", "also", "config"):
            raise unknown(f"key of {path}:", key, ("kind", "labels", "also", "config"))
    if given.get("kind") not in proxy_folder.KINDS:
        raise unknown(f"kind of proxy in {path}:", given.get("kind"), proxy_folder.KINDS)
    known = {field.name: type(field.default) for field in fields(LightConfig)}
    config = given.get("config", {})
    for key, value in config.items():
        if key not in known:
            raise unknown(f"key of config in {path}:", key, known)
        if type(value) not in (known[key], int) or value < 0:
            raise InputError(f"{path}: {key} is {value!r}; it must be a number of at least 0")
    labels = tuple(given.get("labels", ("output_tokens",)))
    return ProxySpec(given["kind"], labels, tuple(given.get("also", ())), LightConfig(**config))


def train(spec: ProxySpec, data: str, out: Path) -> dict[str, Any]:
    """Train, judge on the test split, save to ``out``; returns the proxy's card."""
    if out.exists():
        raise InputError(f"{out} is there already; choose a folder that is not")
    texts = load_texts(data)
    check_trainable(texts)
    draws = np.stack([_logs(texts, name) for name in spec.labels], axis=1)
    with np.errstate(invalid="ignore"):
        known = ~np.isnan(draws).any(axis=1)
        main = np.where(known, draws.mean(axis=1), np.nan)
    targets = np.stack([main, *(_logs(texts, name) for name in spec.also)], axis=1)
    split = texts.splits()
    masks = {name: (split == name) for name in ("train", "val", "test")}
    _check_rows(data, {name: int((mask & known).sum()) for name, mask in masks.items()})
    started = time.perf_counter()
    proxy = fit(texts.prompts, targets, masks["train"], masks["val"], spec.config, draws)
    seconds = time.perf_counter() - started
    test = np.flatnonzero(masks["test"] & known)
    card = {
        "data": data,
        "data_hash": _data_hash(texts, spec),
        "labels": list(spec.labels),
        "also": list(spec.also),
        "config": asdict(spec.config),
        "rows": {name: int((mask & known).sum()) for name, mask in masks.items()},
        "train_seconds": round(seconds, 1),
        "test": _judge(proxy, [texts.prompts[i] for i in test], np.exp(draws[test])),
        "made_with": made_with(),
    }
    proxy_folder.save(out, spec.kind, proxy, card)
    return card


def _logs(texts: Texts, name: str) -> FloatArray:
    """Logarithms of a column of lengths, NaN where it is missing."""
    if name == "output_tokens":
        lengths = texts.output_tokens.astype(np.float64)
    elif name in texts.extra:
        lengths = texts.extra[name]
    else:
        raise unknown("label", name, ["output_tokens", *texts.extra])
    return np.log(np.where(lengths >= 1, lengths, np.nan))


def _check_rows(data: str, rows: dict[str, int]) -> None:
    least = {"train": LEAST_ROWS, "val": LEAST_ROWS // 5, "test": LEAST_ROWS // 5}
    for name, count in rows.items():
        if count < least[name]:
            raise InputError(
                f"{data} has {count} labelled rows in its {name} split; "
                f"training needs at least {least[name]}"
            )


def _data_hash(texts: Texts, spec: ProxySpec) -> str:
    """A hash of the prompts and labels trained on, whatever file they came from."""
    columns = [np.nan_to_num(_logs(texts, name), nan=-1).round(6).tolist() for name in spec.labels]
    return digest({"prompts": [prompt_hash(p) for p in texts.prompts], "labels": columns})


def _judge(proxy: Any, prompts: list[str], draws: FloatArray) -> dict[str, Any]:
    """Quality on the test split, each number as [value, low, high].

    The first label is predicted; where there are several, the rank of their mean too.
    """
    predicted = proxy.predict(prompts)
    names = ["mae", "rmse", "r2", "accuracy", "macro_f1", "within_one_class", "kendall_tau_b",
             "spearman", "pairs_2x"]  # fmt: skip
    found = _intervals(np.rint(draws[:, 0]), predicted.tokens, names)
    if draws.shape[1] > 1:
        mean = _intervals(draws.mean(axis=1), predicted.tokens, ["kendall_tau_b", "spearman"])
        found |= {f"{name}_of_mean": value for name, value in mean.items()}
        found["noise_ceiling_spearman"] = [quality.noise_ceiling(draws)["others_spearman"]] * 1
    low, high = (predicted.quantiles[:, predicted.levels.index(p)] for p in (0.1, 0.9))
    found["coverage_80"] = [quality_intervals.interval_coverage(draws[:, 0], low, high)]
    return {name: [round(float(v), 4) for v in values] for name, values in found.items()}


def _intervals(truth: FloatArray, tokens: FloatArray, names: list[str]) -> dict[str, list[float]]:
    frame = quality_intervals.with_intervals(truth, tokens, names)
    return {row.metric: [row.value, row.low, row.high] for row in frame.itertuples()}
