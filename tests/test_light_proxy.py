"""The light proxy: what it reads of a prompt, its trees, and what training promises."""

import dataclasses
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from ssjf.config import validated
from ssjf.errors import InputError
from ssjf.proxy.base import LEVELS, TrainingRows
from ssjf.proxy.light import features
from ssjf.proxy.light.proxy import LightProxy, Trees
from ssjf.proxy.light.training import LightConfig, train, trees_of

BUCKETS = 2**12
ODD = {
    "empty": "",
    "1 MB": "a list of words " * 2**16,
    "one long word": "x" * 2**20,
    "Chinese": "请用中文写一篇关于机器学习的短文。",
    "emoji": "👩‍👩‍👧‍👦🇨🇳🙂" * 9,
    "code": "def f(x):\n\treturn {'a': [x ** 2, \"b\"]}  # ?\n" * 30,
    "lone surrogates": "a \ud800 b \udfff",
    "zero bytes": "a\0b \0",
    "white space": " \t\n\r\u2003\u00a0\n\n ",
    "digits of other scripts": "²³ ٣٤ ၄ 99999999999999999999",
    "letters that lower differently": "İSTANBUL ẞ ŉ ΑΣ",
}
CONFIG = LightConfig(buckets=BUCKETS, dimensions=4, most_trees=60, patience=30)
odd = pytest.mark.parametrize("prompt", ODD.values(), ids=ODD)


# What is read of a prompt


@odd
def test_features_of_any_prompt(prompt):
    ids, counts = features.grams(prompt, BUCKETS), features.counts(prompt)
    assert np.all(np.diff(ids) > 0) and np.all((ids >= 0) & (ids < BUCKETS))
    assert counts.shape == (features.COUNTS,) and np.all(np.isfinite(counts) & (counts >= 0))


@given(st.text(st.characters(), max_size=60))
def test_features_of_any_characters(prompt):
    ids, counts = features.grams(prompt, 2**8), features.counts(prompt)
    assert (
        ids.dtype == np.int64 and np.array_equal(ids, np.unique(ids)) and ids.max(initial=0) < 256
    )
    assert counts.shape == (features.COUNTS,) and np.isfinite(counts).all()


def test_features_are_the_same_in_every_process():
    code = (
        "from ssjf.proxy.light.features import *; p = 'Write 3 lists, 写, for me?\\n\\nA b'; "
        "print(grams(p, 4096).tolist(), counts(p).tolist())"
    )
    seen = [
        subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed},
                       capture_output=True, check=True).stdout
        for seed in ("0", "1")
    ]  # fmt: skip
    assert seen[0] == seen[1] and seen[0].startswith(b"[")


def test_features_are_pinned():
    """The shipped weights hold for these very features: whoever changes them trains again."""
    prompt = "Write an e-mail: 2 steps?\n\nIt is LONG"
    assert features.grams(prompt, 2**17)[:6].tolist() == [452, 731, 1045, 3740, 4504, 15276]
    sizes, cues = np.split(features.counts(prompt), [13])
    assert np.expm1(sizes).round(9).tolist() == [37, 12, 25, 10, 2, 1, 0, 0, 1, 6, 0, 12, 2]
    assert np.flatnonzero(cues).tolist() == [1, 22, 24, 26] and len(cues) == 27


def test_signs_of_scripts_without_spaces_are_words_and_long():
    """A Chinese question is as long as it says, not one word; all else is read as before."""
    assert features.words_of("请用Python写诗 кот") == ["请", "用", "python", "写", "诗", "кот"]
    sizes = np.expm1(features.counts("请写诗\n\n写")[:4]).round(9)
    assert sizes.tolist() == [6 + 3 * 4, 4, 3 + 3 * 3, 1 + 3]
    assert np.expm1(features.counts("кот é")[:2]).round(9).tolist() == [5, 2]


def test_both_ends_of_a_long_prompt_count():
    middle = "word " * 10**5
    assert features.clipped(f"start {middle} end").startswith("start word")
    assert features.clipped(f"start {middle} end").endswith("word  end")
    assert len(features.clipped(middle)) == features.LONGEST_CHARACTERS
    plain = features.counts(middle)
    for asked in (f"translate {middle}", f"{middle} translate"):
        assert np.sum(features.counts(asked)[13:] != plain[13:]) == 1  # one cue more


def test_long_words_take_no_memory():
    """Words are remembered, but not what may be a whole file of letters."""
    tracemalloc.start()
    for i in range(6):
        features.grams(f"{'x' * 20_000}{i}", BUCKETS)
        features.counts(f"{'x' * 20_000}{i}")
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 1e6


# Trees


@pytest.fixture(scope="module")
def boosted():
    """(a LightGBM regressor, float32 rows): small whole numbers, neighbours, any numbers."""
    import lightgbm

    rng = np.random.default_rng(0)
    near = np.float32(1) + np.arange(8, dtype=np.float32) * np.finfo(np.float32).eps
    rows = np.stack(
        [rng.integers(-3, 4, 2000), rng.choice(near, 2000), rng.normal(size=2000)], axis=1
    ).astype(np.float32)
    target = rows[:, 0] + (rows[:, 1] > near[3]) * 5 + np.sin(rows[:, 2])
    options = {"num_leaves": 15, "verbose": -1, "num_threads": 1, "min_data_in_bin": 1}
    return lightgbm.train(options, lightgbm.Dataset(rows, target), 40), rows


def test_trees_predict_what_lightgbm_does(boosted):
    booster, rows = boosted
    assert np.allclose(trees_of(booster).sums(rows), booster.predict(rows), rtol=1e-4)


def test_trees_part_at_ties_as_lightgbm_does(boosted):
    """On a grid of the thresholds themselves, and of the float32 next to them."""
    booster, _ = boosted
    trees = trees_of(booster)
    inner = trees.feature >= 0
    reached = np.unique(trees.threshold[inner])
    up, down = (np.nextafter(reached, np.float32(end)) for end in (np.inf, -np.inf))
    values = np.concatenate([reached, up, down])
    values = values[abs(values) > 1e-30]  # LightGBM reads numbers this small as 0
    for column in range(3):
        rows = np.zeros((len(values), 3), np.float32)
        rows[:, column] = values
        assert np.allclose(trees.sums(rows), booster.predict(rows), rtol=1e-4, atol=1e-6)


def test_sums_are_those_of_a_plain_walk(boosted):
    booster, rows = boosted
    trees = trees_of(booster)

    def leaf(tree, row):
        node = 0
        while trees.feature[tree, node] >= 0:
            below = row[trees.feature[tree, node]] <= trees.threshold[tree, node]
            node = (trees.left if below else trees.right)[tree, node]
        return float(trees.value[tree, node])

    walked = [sum(leaf(tree, row) for tree in range(len(trees.feature))) for row in rows[:50]]
    assert np.allclose(trees.sums(rows[:50]), walked, rtol=1e-9)


def test_trees_are_their_arrays(boosted):
    booster, rows = boosted
    trees = trees_of(booster)
    again = Trees.restored("trees", trees.stored("trees"))
    assert np.array_equal(again.sums(rows), trees.sums(rows))
    for name in ("left", "right"):
        wrong = dataclasses.replace(trees, **{name: getattr(trees, name) + np.int16(10_000)})
        with pytest.raises(ValueError, match="a node that is not there"):
            wrong.check(3)


# Training


@dataclasses.dataclass
class Case:
    """Prompts whose answers have about as many words as they ask for."""

    prompts: list
    logs: np.ndarray
    train: np.ndarray
    validation: np.ndarray

    @property
    def test(self):
        return ~(self.train | self.validation)

    def fit(self, **changes):
        targets = changes.pop("targets", self.logs[:, None])
        config = changes.pop("config", CONFIG)
        draws = changes.pop("draws", targets[:, :1])
        prompts = changes.pop("prompts", self.prompts)
        rows = TrainingRows(prompts, targets, draws, self.train, self.validation)
        return train(rows, config)


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(1)
    asked = rng.integers(5, 500, 800)
    prompts = [f"Write {n} words about topic {i % 7}." for i, n in enumerate(asked)]
    part = np.arange(800) % 10
    logs = np.log(asked) + rng.normal(0, 0.2, 800)
    return Case(prompts, logs, part < 6, (part == 6) | (part == 7))


@pytest.fixture(scope="module")
def proxy(case):
    return case.fit()


def same(one, other):
    assert one.arrays().keys() == other.arrays().keys()
    return all(
        a.dtype == other.arrays()[name].dtype and a.tobytes() == other.arrays()[name].tobytes()
        for name, a in one.arrays().items()
    )


def test_the_same_seed_gives_the_same_proxy(case, proxy):
    assert same(case.fit(), proxy)
    assert not same(case.fit(config=CONFIG.model_copy(update={"seed": 1})), proxy)


def test_test_rows_influence_nothing(case, proxy):
    prompts = ["" if test else p for p, test in zip(case.prompts, case.test, strict=True)]
    targets = np.where(case.test, np.nan, case.logs)[:, None]
    assert same(case.fit(prompts=prompts, targets=targets, draws=targets), proxy)
    prompts = [f"{p} end" if test else p for p, test in zip(case.prompts, case.test, strict=True)]
    assert same(
        case.fit(prompts=prompts, targets=np.where(case.test, 99, case.logs)[:, None]), proxy
    )


def test_validation_rows_choose_trees_and_residuals_only(case, proxy):
    prompts = [p + " x" if v else p for p, v in zip(case.prompts, case.validation, strict=True)]
    targets = np.where(case.validation, 3 * case.logs, case.logs)[:, None]
    fitted = case.fit(prompts=prompts, targets=targets)
    for name in ("idf", "linear", "offset", "projection", "scale", "base"):
        assert np.array_equal(fitted.arrays()[name], proxy.arrays()[name]), name
    assert not np.array_equal(fitted.residuals, proxy.residuals)


def test_a_planted_rule_is_learned(case, proxy):
    held = [p for p, test in zip(case.prompts, case.test, strict=True) if test]
    predicted = proxy.predict(held)
    assert spearmanr(predicted.tokens, case.logs[case.test])[0] > 0.8
    low, high = (predicted.quantiles[:, LEVELS.index(p)] for p in (0.1, 0.9))
    truth = np.exp(case.logs[case.test])
    assert 0.65 < np.mean((low <= truth) & (truth <= high)) < 0.95
    assert np.all(np.diff(predicted.quantiles, axis=1) >= 0)


def test_auxiliary_lengths_may_be_missing(case):
    other = np.where(np.arange(800) % 3, np.nan, case.logs + 1)
    fitted = case.fit(targets=np.stack([case.logs, other], axis=1))
    assert fitted.linear.shape == (BUCKETS, 2)
    assert all(np.isfinite(a).all() for a in fitted.arrays().values())


def test_the_main_length_may_be_missing(case):
    gone = np.where(np.arange(800) % 4, case.logs, np.nan)[:, None]
    assert np.isfinite(case.fit(targets=gone).predict(case.prompts[:9]).quantiles).all()


def test_several_draws_widen_the_distribution(case, proxy):
    """The distribution is of a single answer: draws that differ more, wider intervals."""
    noise = np.random.default_rng(2).normal(0, 1, (800, 4))
    wide = case.fit(draws=case.logs[:, None] + noise)
    assert np.all(np.ptp(wide.residuals, axis=1) > np.ptp(proxy.residuals, axis=1))


def test_equal_predictions_have_quantiles_too(case):
    """Prompts without a word in common with any other: all predictions are equal."""
    prompts = [chr(0x4E00 + i) for i in range(800)]
    predicted = case.fit(prompts=prompts).predict(["a", *prompts[:3], "write 9 lists"])
    assert np.isfinite(predicted.quantiles).all()


def test_few_validation_rows_make_few_bands(case):
    few = dataclasses.replace(case, validation=case.validation & (np.arange(800) < 200))
    assert few.fit().residuals.shape == (1, len(LEVELS))


@odd
def test_any_prompt_is_predicted(proxy, prompt):
    predicted = proxy.predict([prompt])
    assert np.isfinite(predicted.tokens).all() and predicted.tokens >= 1
    assert np.all(np.diff(predicted.quantiles) >= 0) and predicted.quantiles.min() >= 1


def test_one_prompt_at_a_time_or_all_at_once(case, proxy):
    some = [*ODD.values(), *case.prompts[:1200]]
    together = proxy.predict(some)
    alone = [proxy.predict([prompt]) for prompt in some]
    assert together.tokens.tolist() == [one.tokens[0] for one in alone]
    assert np.array_equal(together.quantiles, np.concatenate([one.quantiles for one in alone]))
    assert proxy.predict([]).quantiles.shape == (0, len(LEVELS))


def test_arrays_hold_all_of_a_proxy(case, proxy):
    again = LightProxy.from_arrays(proxy.arrays(), {})
    assert np.array_equal(again.predict(case.prompts).tokens, proxy.predict(case.prompts).tokens)


def test_a_config_takes_numbers_of_their_kind_only():
    wrong = {"ridge": float("nan"), "leaves": 31.0, "buckets": 1000, "threads": True}
    for key, value in wrong.items():
        with pytest.raises(InputError, match=f"{key} is {value}; it must be "):
            validated(LightConfig, {key: value})
