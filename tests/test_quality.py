"""Quality of predictors: agreement with SciPy, with naive loops, with theory, with the facts."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from shared_data import shared_data
from ssjf.analysis.bootstrap import resampled
from ssjf.analysis.quality import (
    METRICS,
    RANK_METRICS,
    class_quality,
    interval_coverage,
    noise_ceiling,
    quality,
    with_intervals,
)
from ssjf.errors import InputError
from ssjf.proxy import predict
from ssjf.workload import datasets

NAN = math.nan
COLUMNS = st.integers(1, 25).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(1, 12), min_size=n, max_size=n),
        st.lists(st.integers(-3, 6), min_size=n, max_size=n),
    )
)


def rank_quality(truth, score):
    return quality(truth, score, RANK_METRICS)


def chat(n, sigma=0.7, seed=0):
    """Log-normal lengths and predictions that are wrong by a log-normal factor."""
    rng = np.random.default_rng(seed)
    truth = np.ceil(np.exp(rng.normal(5, 1, n)))
    return truth, truth * np.exp(sigma * rng.standard_normal(n))


@pytest.fixture
def lmsys(monkeypatch):
    """SSJF's own predictions."""
    monkeypatch.setenv("SSJF_DATA", str(shared_data("ssjf-lmsys")))
    return datasets.load("ssjf-lmsys")


# Definitions


def test_a_case_done_by_hand():
    found = quality([10, 100, 200, 600], [20, 150, 180, 250])
    assert found["mae"] == (10 + 50 + 20 + 350) / 4
    assert found["rmse"] == pytest.approx(math.sqrt((100 + 2500 + 400 + 350**2) / 4))
    assert found["accuracy"] == 0.5  # classes 0 1 2 4 predicted as 0 2 2 2
    assert found["within_one_class"] == 0.75
    assert found["macro_f1"] == pytest.approx((1 + 0 + 2 / 4 + 0) / 4)
    assert found["kendall_tau_b"] == pytest.approx(1)
    assert found["pairs_2x"] == 1
    assert tuple(found) == METRICS


def test_binning_is_that_of_the_class_predictor():
    tokens = np.array([1, 41, 42, 140, 141, 293, 294, 502, 503, 9000])
    just_below = tokens - 1e-9
    assert quality(tokens, tokens)["accuracy"] == 1
    assert quality(tokens, just_below)["accuracy"] == 0.6


@given(COLUMNS)
def test_correlations_are_scipys(pair):
    truth, score = (np.array(column, float) for column in pair)
    if np.ptp(truth) == 0 or np.ptp(score) == 0:
        return
    found = rank_quality(truth, score)
    assert found["kendall_tau_b"] == pytest.approx(stats.kendalltau(truth, score).statistic)
    assert found["spearman"] == pytest.approx(stats.spearmanr(truth, score).statistic)


def naive_pairs_2x(truth, score):
    points = pairs = 0
    for i in range(len(truth)):
        for j in range(len(truth)):
            if truth[i] >= 2 * truth[j]:
                pairs += 1
                points += (score[i] > score[j]) + 0.5 * (score[i] == score[j])
    return points / pairs if pairs else NAN


@given(COLUMNS)
def test_pairs_2x_are_exactly_those_of_the_double_loop(pair):
    assert np.array_equal(rank_quality(*pair)["pairs_2x"], naive_pairs_2x(*pair), equal_nan=True)


def test_pairs_2x_are_exact_on_5000_requests():
    truth, score = chat(5000)
    score = np.round(score, -1)  # ties
    found = rank_quality(truth, score)["pairs_2x"]
    apart = truth[:, None] >= 2 * truth
    points = (score[:, None] > score) + 0.5 * (score[:, None] == score)
    assert found == points[apart].sum() / apart.sum()


def naive_macro_f1(truth, predicted):
    scores = []
    for one in sorted({*truth, *predicted}):
        hits = sum(t == p == one for t, p in zip(truth, predicted, strict=True))
        precision = hits / max(1, predicted.count(one))
        recall = hits / max(1, truth.count(one))
        scores.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    return np.mean(scores)


@given(COLUMNS)
def test_macro_f1_is_the_mean_of_harmonic_means(pair):
    assert class_quality(*pair)["macro_f1"] == pytest.approx(naive_macro_f1(*pair))


# Invariants


def test_a_perfect_predictor():
    truth, _ = chat(500)
    found = quality(truth, truth)
    assert all(found.pop(name) == 0 for name in ("mae", "rmse"))
    assert found == pytest.approx(dict.fromkeys(found, 1.0))


def test_the_mean_explains_and_orders_nothing():
    truth, _ = chat(500)
    found = quality(truth, np.full(500, truth.mean()))
    assert found["r2"] == pytest.approx(0)
    assert found["rmse"] == pytest.approx(truth.std())
    assert [found[name] for name in ("kendall_tau_b", "spearman")] == [0, 0]
    assert found["pairs_2x"] == 0.5


def test_the_wrong_way_round():
    truth = np.arange(1, 200)
    found = rank_quality(truth, -truth)
    assert found["kendall_tau_b"] == pytest.approx(-1)
    assert found["spearman"] == pytest.approx(-1)
    assert found["pairs_2x"] == 0


@given(COLUMNS)
def test_only_the_order_counts_for_ranks_and_not_that_of_the_requests(pair):
    truth, score = (np.array(column) for column in pair)
    shuffled = np.random.default_rng(0).permutation(len(truth))
    expected = pytest.approx(rank_quality(truth, score), nan_ok=True)
    assert rank_quality(truth, np.exp(score / 2.0)) == expected
    assert rank_quality(truth[shuffled], score[shuffled]) == expected


@given(COLUMNS)
def test_pairs_2x_of_a_score_and_of_its_opposite_are_all_pairs(pair):
    truth, score = (np.array(column) for column in pair)
    there, back = rank_quality(truth, score)["pairs_2x"], rank_quality(truth, -score)["pairs_2x"]
    assert np.isnan(there) or there + back == pytest.approx(1)


def test_what_is_undefined_is_nan_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for truth, predicted in (([5], [7.0]), ([5, 5], [1.0, 2.0])):
            found = quality(truth, predicted)
            undefined = {name for name, value in found.items() if np.isnan(value)}
            assert undefined == {"r2", *RANK_METRICS}


# The ceiling


def test_the_ceiling_is_that_of_the_score_behind_the_draws():
    rng = np.random.default_rng(3)
    score = rng.standard_normal(20_000)
    draws = np.exp(5 + score[:, None] + 0.6 * rng.standard_normal((20_000, 4)))
    reachable = np.mean([stats.spearmanr(score, draw).statistic for draw in draws.T])
    pair = stats.spearmanr(*draws.T[:2]).statistic
    assert pair < noise_ceiling(draws) < reachable
    assert noise_ceiling(draws[:, :2]) == pytest.approx(pair)


def test_draws_without_noise_can_be_predicted():
    assert noise_ceiling(np.repeat(np.arange(1, 50)[:, None], 3, axis=1)) == pytest.approx(1.0)


# Distributions

LEVELS = (np.arange(19) + 0.5) / 19


def exponential(n, seed=0):
    """Exponential lengths of known scale per request, and their true quantiles."""
    rng = np.random.default_rng(seed)
    scale = rng.uniform(50, 500, n)
    truth = rng.exponential(scale)
    return truth, -scale[:, None] * np.log1p(-LEVELS)


def test_true_quantiles_cover_what_they_say():
    truth, quantiles = exponential(20_000)
    for low, high in ((0, 18), (4, 14), (0, 9)):
        found = interval_coverage(truth, quantiles[:, low], quantiles[:, high])
        assert found == pytest.approx(LEVELS[high] - LEVELS[low], abs=0.015)


def test_the_ends_of_an_interval_belong_to_it():
    assert interval_coverage([1, 2, 3, 4], [1, 1, 4, 4], [1, 2, 5, 4]) == 0.75


def test_intervals_hold_their_values_and_repeat_by_seed():
    truth, predicted = chat(400)
    table = with_intervals(truth, predicted, resamples=200)
    assert table["metric"].tolist() == list(METRICS)
    assert table["value"].tolist() == list(quality(truth, predicted).values())
    assert ((table["low"] < table["value"]) & (table["value"] < table["high"])).all()
    assert table.equals(with_intervals(truth, predicted, resamples=200))


def test_intervals_shrink_with_the_root_of_the_requests():
    names = ("spearman", "pairs_2x")
    widths = []
    for n in (500, 8000):
        table = with_intervals(*chat(n), names, resamples=200)
        widths.append((table["high"] - table["low"]).to_numpy())
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.25)


def test_the_interval_of_a_mean_is_the_textbooks():
    truth, predicted = chat(500)
    error = stats.sem(abs(truth - predicted))
    table = with_intervals(truth, predicted, ["mae"])
    assert (table["high"] - table["low"])[0] == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_conversations_are_drawn_whole():
    truth, predicted = chat(300)
    copies = np.repeat(np.arange(300), np.arange(300) % 3 + 1)  # 1 to 3 turns, all alike

    def width(rows, groups):
        def spearman(at):
            return quality(truth[rows[at]], predicted[rows[at]], ["spearman"])

        table = resampled(spearman, len(rows), groups, resamples=300)
        return (table["high"] - table["low"])[0]

    once, naive, grouped = width(np.arange(300), None), width(copies, None), width(copies, copies)
    assert naive < 0.85 * grouped  # copies seem to be evidence
    assert grouped == pytest.approx(once, rel=0.3)


def test_any_measure_can_be_resampled():
    truth, quantiles = exponential(500)

    def coverage(rows):
        low, high = quantiles[rows, 0], quantiles[rows, -1]
        return {"coverage": interval_coverage(truth[rows], low, high)}

    row = resampled(coverage, 500, resamples=300).iloc[0]
    assert row["low"] < LEVELS[-1] - LEVELS[0] < row["high"]


def test_no_interval_where_nothing_can_be_resampled():
    one_group = resampled(lambda rows: {"n": len(rows)}, 3, groups=[1, 1, 1])
    assert one_group[["low", "high"]].isna().all(axis=None)
    no_order = with_intervals([5, 9], [4, 9], ["spearman", "kendall_tau_b"])
    assert no_order["metric"].tolist() == ["spearman", "kendall_tau_b"]
    assert no_order[["low", "high"]].isna().all(axis=None)


# Bad input

BAD = [
    ("2 values, one per request, not of shape", lambda: quality([1, 2], [1.0])),
    ("2 values, one per request, not of shape", lambda: quality([[1, 2]], [1.0, 2.0])),
    ("truth is empty", lambda: quality([], [])),
    ("predicted holds 1 values of 2 that are not finite", lambda: quality([1, 2], [1.0, NAN])),
    ("truth holds 1 values of 2 that are not finite", lambda: rank_quality([1, NAN], [1, 2])),
    ("truth holds 1 lengths of 2 that are not above 0", lambda: quality([0, 2], [1.0, 2.0])),
    ("class ids must be whole", lambda: class_quality([1, 2], [1, 2.5])),
    ("at least 2 answers", lambda: noise_ceiling([[1], [2]])),
    ("at least 2 answers", lambda: noise_ceiling([1, 2])),
    ("draws is empty", lambda: noise_ceiling(np.empty((0, 2)))),
    ("draws holds 1 lengths of 4", lambda: noise_ceiling([[1, 2], [0, 3]])),
    ("differ from prompt to prompt", lambda: noise_ceiling([[1, 2], [1, 3]])),
    ("low must not be above high", lambda: interval_coverage([5], [9], [1])),
    ("high must be 1 values", lambda: interval_coverage([5], [9], [1, 2])),
    ("unknown metric 'f2'; known: accuracy,", lambda: with_intervals([1], [1], ["f2"])),
    ("resamples is 0", lambda: with_intervals([1], [1], resamples=0)),
    ("groups must be 1 values", lambda: resampled(dict, 1, [1, 2])),
]


@pytest.mark.parametrize(("message", "call"), BAD, ids=[message for message, _ in BAD])
def test_bad_input_is_refused_in_one_sentence(message, call):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


# The published predictions of SSJF


def test_the_published_classes_score_as_known(lmsys):
    truth = lmsys.output_tokens
    for name, spec, accuracy, tau, spearman in (
        ("cls3", "classes:141,503", 0.807, 0.567, 0.695),
        ("cls5", "classes", 0.600, 0.635, 0.774),
    ):
        ids = lmsys.predictions[name]
        classes = class_quality(predict(spec, lmsys, np.random.default_rng()), ids)
        ranks = rank_quality(truth, ids)
        assert classes["accuracy"] == pytest.approx(accuracy, abs=5e-4)
        assert ranks["kendall_tau_b"] == pytest.approx(tau, abs=5e-4)
        assert ranks["spearman"] == pytest.approx(spearman, abs=5e-4)
    assert classes["macro_f1"] == pytest.approx(0.511, abs=5e-4)
    assert classes["within_one_class"] == pytest.approx(0.931, abs=5e-4)


def test_the_published_classes_decoded_to_tokens_score_as_known(lmsys):
    decoded = predict("class-mean:cls5", lmsys, np.random.default_rng())
    found = quality(lmsys.output_tokens, decoded)
    assert found["mae"] == pytest.approx(71, abs=0.5)
    assert found["rmse"] == pytest.approx(98, abs=0.5)
    assert found["r2"] == pytest.approx(0.55, abs=5e-3)


def test_a_constant_scores_as_known_on_the_published_lengths(lmsys):
    truth = lmsys.output_tokens
    median, mean = (quality(truth, np.full(len(truth), f(truth))) for f in (np.median, np.mean))
    assert median["mae"] == pytest.approx(124, abs=0.5)  # the best constant for absolute errors
    assert mean["rmse"] == pytest.approx(146, abs=0.5)
    assert mean["r2"] == pytest.approx(0)
