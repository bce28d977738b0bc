"""Trains the light proxy; needs scikit-learn and LightGBM (the extra ``train``).

Everything is fitted on the training rows; validation rows choose the number of trees and give the
residuals of the predicted distribution.
"""

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field, field_validator

from ssjf.config import STRICT
from ssjf.proxy.base import TrainingRows, fit_residuals
from ssjf.proxy.light import features
from ssjf.proxy.light.proxy import TREE_TYPES, LightProxy, Trees
from ssjf.request import FloatArray

FOLDS = 5


class LightConfig(BaseModel):
    """Options of a light proxy's training."""

    model_config = STRICT

    buckets: int = Field(2**17, ge=2**8, le=2**24)
    dimensions: int = Field(24, ge=1, le=2**8)
    ridge: float = Field(0.5, ge=1e-6, le=1e6)
    least_prompts: int = Field(2, ge=1, le=10**6)
    learning_rate: float = Field(0.03, ge=1e-6, le=1)
    leaves: int = Field(31, ge=2, le=2**12)
    most_trees: int = Field(2000, ge=1, le=10**5)
    patience: int = Field(100, ge=1, le=10**5)
    bands: int = Field(5, ge=1, le=100)
    threads: int = Field(1, ge=1, le=256)
    seed: int = Field(0, ge=0, le=2**31 - 1)

    @field_validator("buckets")
    @classmethod
    def _power_of_two(cls, buckets: int) -> int:
        if buckets & (buckets - 1):
            raise ValueError(f"buckets is {buckets}; it must be a power of two")
        return buckets


def train(rows: TrainingRows, config: LightConfig, keep: Path | None = None) -> LightProxy:
    """Fit a light proxy; this takes seconds, so there are no checkpoints."""
    known = ~np.isnan(rows.targets).all(axis=1)
    used = np.flatnonzero((rows.train | rows.validation) & known)
    prompts = rows.prompts_of(used)
    targets, train, held = rows.targets[used], rows.train[used], rows.validation[used]
    ids = [features.grams(prompt, config.buckets) for prompt in prompts]
    tfidf, idf = features.tfidf(ids, config.buckets, train, config.least_prompts)
    linear, offset, scores = _linear(tfidf, targets, train, config)
    projection, scale = _projection(tfidf[np.flatnonzero(train)], config)
    counts = np.stack([features.counts(prompt) for prompt in prompts])
    projected = (tfidf @ projection.astype(np.float64)) * scale
    columns = np.hstack([scores, counts, projected]).astype(np.float32)
    known = ~np.isnan(targets[:, 0])
    booster, base = _boost(columns, targets[:, 0], train & known, held & known, config)
    trees = trees_of(booster)
    drawn = held & ~np.isnan(rows.draws[used]).any(axis=1)
    logs = base + trees.sums(columns[drawn])
    around = fit_residuals(logs, rows.draws[used][drawn], config.bands)
    return LightProxy(
        **vars(around), idf=idf, linear=linear, offset=offset, projection=projection, scale=scale,
        base=np.array([base]), trees=trees,
    )  # fmt: skip


def _linear(tfidf, targets: FloatArray, train: np.ndarray, config: LightConfig):
    """Fit a ridge per target: (weights as float16, offsets, scores); scores of training rows are
    cross-validated."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import PredefinedSplit, cross_val_predict

    weights, offsets, scores = [], [], []
    for target in targets.T:
        rows = np.flatnonzero(train & ~np.isnan(target))
        model = Ridge(alpha=config.ridge).fit(tfidf[rows], target[rows])
        weights.append(model.coef_.astype(np.float16))
        offsets.append(model.intercept_)
        score = tfidf @ weights[-1].astype(np.float64) + model.intercept_
        folds = PredefinedSplit(np.random.default_rng(config.seed).permutation(len(rows)) % FOLDS)
        model = Ridge(alpha=config.ridge)
        score[rows] = cross_val_predict(model, tfidf[rows], target[rows], cv=folds)
        scores.append(score)
    return np.stack(weights, axis=1), np.array(offsets), np.stack(scores, axis=1)


def _projection(tfidf, config: LightConfig):
    """Truncated SVD of the training rows, rounded to int8 with a scale per dimension."""
    from sklearn.decomposition import TruncatedSVD

    svd = TruncatedSVD(config.dimensions, n_iter=4, random_state=config.seed)
    with np.errstate(invalid="ignore"):  # its explained variance may be 0 / 0
        svd.fit(tfidf)
    components = svd.components_.T
    scale = np.maximum(np.abs(components).max(axis=0), 1e-9) / 127
    return np.rint(components / scale).astype(np.int8), scale


def _boost(columns, target, train, validation, config: LightConfig):
    """Fit boosted trees; return (booster, base)."""
    import lightgbm as lgb

    base = float(target[train].mean())
    options = {
        "objective": "l2", "learning_rate": config.learning_rate, "num_leaves": config.leaves,
        "min_data_in_leaf": min(40, max(2, int(train.sum()) // 50)), "feature_fraction": 0.4,
        "bagging_fraction": 0.8, "bagging_freq": 1, "verbose": -1, "seed": config.seed,
        "num_threads": config.threads, "deterministic": True, "force_row_wise": True,
        "boost_from_average": False,
    }  # fmt: skip
    fitted, held = (lgb.Dataset(columns[m], target[m] - base) for m in (train, validation))
    stop = lgb.early_stopping(config.patience, verbose=False)
    return lgb.train(options, fitted, config.most_trees, [held], callbacks=[stop]), base


def trees_of(booster: Any) -> Trees:
    """The trees of a trained LightGBM regressor without categorical columns."""
    dumped = [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
    nodes = [_nodes(root) for root in dumped]
    shape = len(nodes), max(map(len, nodes))
    columns = [np.zeros(shape, kind) for kind in TREE_TYPES]
    for tree, rows in enumerate(nodes):
        for column, values in zip(columns, zip(*rows, strict=True), strict=True):
            column[tree, : len(rows)] = values
    return Trees(*columns)


def _nodes(root: dict[str, Any]) -> list[tuple[int, float, int, int, float]]:
    """A tree as (feature, threshold, left, right, value), the root first."""
    nodes: list[Any] = [root]
    rows = []
    for node in nodes:
        if "leaf_value" in node:
            rows.append((-1, 0.0, 0, 0, node["leaf_value"]))
            continue
        children = len(nodes), len(nodes) + 1
        nodes += [node["left_child"], node["right_child"]]
        rows.append((node["split_feature"], _rounded_down(node["threshold"]), *children, 0.0))
    return rows


def _rounded_down(value: float) -> float:
    """The largest float32 of at most ``value``: it splits float32 columns exactly as ``value``."""
    near = np.float32(value)
    return float(near if float(near) <= value else np.nextafter(near, np.float32(-np.inf)))
