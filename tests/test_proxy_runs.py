"""Trainings as raw runs, the pools made of them, and how they are judged."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import (
    mean_absolute_error,
    precision_recall_fscore_support,
    r2_score,
    root_mean_squared_error,
)

from commands import changed
from ssjf.analysis import predictions
from ssjf.analysis.quality import class_quality, quality
from ssjf.errors import InputError
from ssjf.experiments import draws, grid, paths, pools, runner, store, sweep_draws
from ssjf.experiments.grid import Experiment, experiment
from ssjf.experiments.runs import training as proxy_runs
from ssjf.workload.texts import SPLITS, fold_of, split_of

LIGHT = {"kind": "light", "labels": ["output_tokens", "again"],
         "config": {"buckets": 1024, "dimensions": 4, "most_trees": 40,
                    "learning_rate": 0.1}}  # fmt: skip
SERIES = (
    {"series": "light", "proxy": LIGHT},
    {"series": "constant", "proxy": {"kind": "constant", "labels": ["output_tokens", "again"]}},
)


def answered(n=700):
    rng = np.random.default_rng(0)
    rows = []
    for i, words in enumerate(rng.integers(5, 400, n).tolist()):
        first, second = (max(1, round(words * noise)) for noise in rng.uniform(0.7, 1.3, 2))
        rows.append({"prompt": f"Write {words} words about thing {i}", "output_tokens": first,
                     "again": second, "conversation_id": i // 2, "turn": 1 + i % 2})  # fmt: skip
    return rows


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Results of their own, and an experiment of two trainings on a small file."""
    folder = tmp_path_factory.mktemp("results")
    data = folder / "texts.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in answered()))
    common = {"engine": "training", "detail": "predictions"}
    workload = {"draw": "texts", "data": str(data)}
    asked = Experiment(
        "trial", "a test", "a trial", "prediction", common, workload, SERIES, {"seed": [0]}
    )
    folds = workload | {"folds": 5}
    points = {"workload": [{"fold": k, "label": "own"} for k in range(5)]}
    crossed = Experiment(
        "crossed", "a test", "folds", "prediction", common, folds, SERIES[1:], points
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSJF_RESULTS", str(folder))
        patch.setitem(grid.experiments(), "trial", asked)
        patch.setitem(grid.experiments(), "crossed", crossed)
        runner.run("trial")
        runner.run("crossed")
        draws._live.cache_clear()
        yield folder
    draws._live.cache_clear()


def test_a_run_holds_hashes_lengths_and_predictions_and_no_text(here):
    rows = grid.rows("trial")
    texts = [row["prompt"] for row in answered()]
    tested = [i for i in range(0, 700, 2) if split_of(texts[i]) == "test"]
    light = rows[rows["series"] == "light"]
    assert len(light) == 2 * len(tested), "both turns of every conversation of the test split"
    stored = b"".join(path.read_bytes() for path in (here / "raw").rglob("*") if path.is_file())
    assert b"Write" not in stored and b"about thing" not in stored
    opener = light["conversation"] == light["prompt_hash"]
    assert (light["turn"][opener] == 1).all() and (light["turn"][~opener] == 2).all()


def test_classes_part_at_the_percentiles_of_the_training_lengths(here):
    rows = grid.rows("trial")
    split = [split_of(answered()[i - i % 2]["prompt"]) for i in range(700)]
    train = [row["output_tokens"] for row, s in zip(answered(), split, strict=True) if s == "train"]
    edges = np.percentile(train, [25, 50, 75, 99])
    for true, told in (("output_tokens", "true_class"), ("predicted_tokens", "predicted_class")):
        assert (np.searchsorted(edges, rows[true], side="right") == rows[told]).all()


def test_a_trained_proxy_is_not_trained_again_when_only_its_rows_are_lost(here, monkeypatch):
    spec = experiment("trial").specs()[0]
    before = store.load(spec)
    monkeypatch.setattr(proxy_runs.train, "train", lambda *_: pytest.fail("trained again"))
    again = proxy_runs.predictions(spec)
    pd.testing.assert_frame_equal(before.drop(columns="run_id"), again)


def test_every_prompt_is_tested_in_one_fold_by_a_proxy_that_has_not_seen_it(here):
    rows = grid.rows("crossed")
    assert (rows["workload"] == "own").all()
    assert len(rows) == 700 and rows["prompt_hash"].is_unique
    for prompt in (row["prompt"] for row in answered(60)):
        splits = [fold_of(prompt, 5, k) for k in range(5)]
        assert sorted(splits) == ["test", "train", "train", "train", "val"]
        assert set(splits) <= set(SPLITS)


def test_another_data_set_is_judged_by_its_own_lengths_of_the_one_llm(here):
    rows = [{"prompt": f"Say: {row['prompt']}", "model": model,
             "output_tokens": times * row["output_tokens"]}
            for row in answered() for model, times in (("a", 2), ("b", 3))]  # fmt: skip
    other = here / "other.jsonl"
    other.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (spec, *_) = experiment("trial").specs()
    for llm, times in ((None, (2, 3)), ("b", (3,))):
        workload = spec.workload.model_copy(update={"judged": str(other), "llm": llm})
        found = proxy_runs.predictions(spec.model_copy(update={"workload": workload}))
        tested = [row for row in answered() if split_of(f"Say: {row['prompt']}") == "test"]
        lengths = sorted(n * row["output_tokens"] for row in tested for n in times)
        assert sorted(found["output_tokens"]) == lengths and "draw_1" not in found


def test_an_llm_whose_answers_are_judged_is_not_trained_on_unless_alone(here, monkeypatch):
    rows = [row | {"model": model} for row in answered() for model in "ab"]
    both = here / "both.jsonl"
    both.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (spec, *_) = experiment("trial").specs()
    seen = []
    monkeypatch.setattr(proxy_runs.train, "train", lambda _, __, ___, texts, ____: seen.append(
        set(texts.model)))  # fmt: skip
    for judged in (str(both), None):
        update = {"data": str(both), "judged": judged, "llm": "b"}
        workload = spec.workload.model_copy(update=update)
        with pytest.raises(InputError, match="is no proxy"):
            proxy_runs.predictions(spec.model_copy(update={"workload": workload}))
    assert seen == [{"a"}, {"b"}]


def test_a_pool_has_a_column_per_series_and_the_other_answers(here):
    pool = pools.predicted(["trial"])
    light = grid.rows("trial").query("series == 'light'")
    assert {"light", "constant", "draw_1", "other_draws"} <= {*pool}
    assert sorted(pool["output_tokens"]) == sorted(light["output_tokens"])
    assert pool["other_draws"].tolist() == pool["draw_1"].tolist(), "one more draw is its mean"
    told = dict(zip(light["output_tokens"] * 1e6 + light["draw_1"], light["predicted_tokens"],
                    strict=True))  # fmt: skip
    found = pool["output_tokens"] * 1e6 + pool["draw_1"]
    assert [told[key] for key in found] == pool["light"].tolist()
    assert set(pools.predicted(["trial"], turn=2)["output_tokens"]) <= set(light["output_tokens"])
    requests = draws.to_requests(pool.drop(columns="other_draws"))
    assert {*requests.predictions} == {"light", "constant", "draw_1"}


def test_a_pool_of_nothing_is_refused(here):
    with pytest.raises(InputError, match="no rows of moon, turn 1"):
        pools.predicted(["crossed"], label="moon", turn=1)


def test_a_sweep_over_a_pool_is_drawn_as_the_authors_draw(here):
    options = {"draw": "predicted-sweep", "pool": {"draw": "predicted", "of": ["trial"]},
               "rates": [1, 2], "keep": [2], "runs": 3, "jobs": 20, "seed": 5}  # fmt: skip
    found = draws.draw(options)
    pool = pools.predicted(["trial"])
    state = np.random.RandomState(5)
    expected = []
    for rate in (1, 2):
        for _ in range(3):
            arrived = sweep_draws.whole_second_poisson(state, rate, 20)
            rows = state.choice(len(pool), 20, replace=False)
            expected += [] if rate == 1 else [(arrived, pool["output_tokens"].to_numpy()[rows])]
    assert found["arrived_at"].tolist() == np.concatenate([a for a, _ in expected]).tolist()
    assert found["output_tokens"].tolist() == np.concatenate([n for _, n in expected]).tolist()
    assert not draws.draw_path(options).exists(), "it is made of raw runs, not stored"


def test_errors_are_those_of_scikit_learn():
    rng = np.random.default_rng(4)
    truth, predicted = rng.integers(1, 400, 300).astype(float), rng.uniform(0, 400, 300)
    expected = {"mae": mean_absolute_error, "rmse": root_mean_squared_error, "r2": r2_score}
    for name, value in quality(truth, predicted, list(expected)).items():
        assert value == pytest.approx(expected[name](truth, predicted))


def test_precision_recall_and_confusion_are_those_of_scikit_learn():
    rng = np.random.default_rng(3)
    true, said = pd.Series(rng.integers(0, 4, 300)), pd.Series(rng.integers(0, 3, 300))
    found = class_quality(true, said)
    precision, recall, _, _ = precision_recall_fscore_support(
        true, said, average="macro", zero_division=0
    )
    assert (found["precision"], found["recall"]) == pytest.approx((precision, recall))
    matrix = predictions.confusion(pd.DataFrame({"true_class": true, "predicted_class": said}))
    assert matrix.sum(axis=1) == pytest.approx(np.ones(4))
    assert matrix[2, 1] == pytest.approx(((true == 2) & (said == 1)).sum() / (true == 2).sum())


def test_judging_holds_the_value_within_its_interval(here):
    found = predictions.quality_of(grid.rows("trial")).set_index(["series", "metric"])
    assert set(found.index.get_level_values("metric")) == set(predictions.WORDS)
    light = found.loc["light"]
    assert light.loc["spearman", "value"] > 0.7
    assert (light["low"] <= light["value"] + 1e-9).all()
    assert (light["value"] <= light["high"] + 1e-9).all()
    assert found.loc[("constant", "spearman"), "value"] == 0


def test_a_series_that_another_needs_must_be_trained(here):
    spec = experiment("trial").specs()[0]
    lacking = changed(spec, config={"encoder": "proxy:nowhere"})
    with pytest.raises(InputError, match="needs the proxy nowhere"):
        proxy_runs._proxy_spec(lacking)
    there = proxy_runs._resolved(spec, "proxy:light")
    assert Path(there).name.startswith("light-") and (Path(there) / "proxy.json").is_file()


def test_a_group_of_runs_holds_neither_what_needs_a_gpu_nor_another_groups_runs():
    everything = [spec for each in grid.experiments().values() for spec in each.specs()]
    on_gpu = {store.digest(spec) for spec in everything if '"cuda"' in json.dumps(spec.as_json())}
    trained = {store.digest(spec) for spec in everything if spec.engine == "training"}
    found = {name: {*map(store.digest, runner._specs(name, None))} for name in runner.GROUPS}
    assert on_gpu and on_gpu <= trained, "there are trainings that need a GPU"
    assert found["trainings"] == trained - on_gpu
    assert found["all"] and found["all"].isdisjoint(trained)


# --- what is committed -------------------------------------------------------------------------

COMMITTED = Path(__file__).parents[1] / "results" / "raw"


def committed(name):
    if not any((COMMITTED / name).glob("*/rows.parquet")):
        pytest.fail(f"the raw runs of {name} are not there")
    return grid.rows(name)


def test_no_less_is_charged_for_a_prediction_than_it_takes(monkeypatch):
    monkeypatch.delenv("SSJF_RESULTS", raising=False)
    assert paths.raw() == COMMITTED
    latency = committed("proxy-latency").groupby("series")["latency_ms"].median()
    for series in experiment("gain").series:
        kind, _, name = series["series"].partition(":")
        if kind == "proxy":
            assert 1e3 * series["predictor_seconds"] >= latency[name], name
