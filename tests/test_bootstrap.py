"""Intervals: seeded, paired, as wide as theory says, and refusing what is not a number."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssjf.analysis import bootstrap
from ssjf.errors import InputError

RUNS = np.random.default_rng(0).gamma(4, 2, 60)
PAIRS = [bootstrap.reduction, bootstrap.factor, bootstrap.difference]


def test_the_interval_of_a_mean_is_as_wide_as_its_standard_error():
    found = bootstrap.interval(RUNS)
    error = RUNS.std() / np.sqrt(len(RUNS))
    assert found.value == pytest.approx(RUNS.mean())
    assert found.low == pytest.approx(RUNS.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(RUNS.mean() + 1.96 * error, abs=0.15 * error)


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        found = bootstrap.interval(rng.normal(5, 1, 40))
        covered += found.low <= 5 <= found.high
    assert covered / 400 == pytest.approx(0.95, abs=0.04)


def test_values_are_those_of_the_means():
    baseline, treated, oracle = np.array([2.0, 6]), np.array([1.0, 4]), np.array([1.0, 2])
    assert bootstrap.reduction(baseline, treated).value == pytest.approx(100 * (1 - 2.5 / 4))
    assert bootstrap.factor(baseline, treated).value == pytest.approx(2.5 / 4)
    assert bootstrap.difference(baseline, treated).value == pytest.approx(-1.5)
    assert bootstrap.captured(baseline, treated, oracle).value == pytest.approx(1.5 / 2.5)


@pytest.mark.parametrize("of", PAIRS)
def test_runs_are_paired(of):
    """What is common to a run cancels: the same factor in every run has no scatter."""
    exact = of(RUNS, 0.7 * RUNS)
    if of is not bootstrap.difference:
        assert exact.high - exact.low == pytest.approx(0, abs=1e-9)
    unpaired = of(RUNS, 0.7 * RUNS[::-1])
    assert unpaired.high - unpaired.low > 2 * (exact.high - exact.low)


def test_a_difference_of_equals_is_nothing():
    assert bootstrap.difference(RUNS, RUNS + 2) == pytest.approx((2, 2, 2))


@given(st.lists(st.floats(0.1, 100), min_size=2, max_size=40))
def test_an_interval_is_the_same_again_and_ordered(values):
    values = np.array(values)
    first, again = (bootstrap.reduction(values, values[::-1]) for _ in range(2))
    assert first == again
    assert first.low <= first.high
    mean = bootstrap.interval(values)
    assert values.min() - 1e-9 <= mean.low <= mean.high <= values.max() + 1e-9


def test_whole_groups_are_drawn():
    groups = np.tile(np.arange(6), 10)
    alike = RUNS[groups]  # ten copies of six values, interleaved
    honest, fooled = bootstrap.interval(alike, groups=groups), bootstrap.interval(alike)
    six = bootstrap.interval(RUNS[:6])
    assert honest == pytest.approx(six)
    assert honest.high - honest.low > 2 * (fooled.high - fooled.low)


def test_groups_of_one_are_runs():
    names = [f"seed {i}" for i in range(60)]
    found = bootstrap.interval(RUNS, groups=names)
    plain = bootstrap.interval(RUNS)
    assert found.high - found.low == pytest.approx(plain.high - plain.low, rel=0.1)


@pytest.mark.parametrize("options", [{}, {"groups": [3, 3, 3]}])
def test_one_group_has_a_value_and_no_interval(options):
    values = [4.0, 4, 4] if options else [4.0]
    found = bootstrap.interval(values, **options)
    assert found.value == 4
    assert np.isnan([found.low, found.high]).all()


def test_a_share_of_no_gain_is_not_a_number():
    assert np.isnan(bootstrap.captured([2.0, 3], [2.0, 3], [2.0, 3])).all()
    assert np.isnan(bootstrap.reduction([0.0, 0], [0.0, 0])).all()


def test_any_statistic_of_stacked_columns():
    stacked = np.stack([RUNS, 0.5 * RUNS])
    found = bootstrap.statistic(lambda v: v.mean(-1)[:, 1] / v.mean(-1)[:, 0], stacked)
    assert found == pytest.approx((0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap.interval([]), "values must hold at least one number"),
        (lambda: bootstrap.interval([1, np.nan, np.inf]), "values holds 2 values of 3 that are"),
        (lambda: bootstrap.interval([1, 2], groups=[1]), "groups must be 2 ids"),
        (lambda: bootstrap.interval([1, 2, 3], groups=[1, 1, 2]), "from 1 to 2 runs"),
        (lambda: bootstrap.reduction([1, 2], [1, np.nan]), "treated holds 1 values of 2"),
        (lambda: bootstrap.factor([1, 2], [1]), r"baseline, treated must be a number per run"),
        (lambda: bootstrap.captured([1], [1], [1, 2]), "fcfs, policy, oracle must be"),
        (lambda: bootstrap.batch_means([1, 2], 3), "2 values do not fill 3 batches"),
    ],
)
def test_what_is_wrong_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_batches_are_consecutive_and_drop_the_start():
    assert bootstrap.batch_means([99, 1, 3, 5, 7], 2).tolist() == [2, 6]


def test_batch_means_see_the_correlation_that_single_values_hide():
    steps = np.random.default_rng(3).normal(size=60_000)
    walk = np.empty_like(steps)
    walk[0] = 0
    for i in range(1, len(steps)):
        walk[i] = 0.95 * walk[i - 1] + steps[i]
    honest = bootstrap.interval(bootstrap.batch_means(walk))
    error = (1 / 0.05) / np.sqrt(len(steps))  # of an AR(1) process's mean
    assert (honest.high - honest.low) / (2 * 1.96) == pytest.approx(error, rel=0.3)
