"""Synthetic lengths: the mean, the tail and the quantiles that were asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssjf.errors import InputError
from ssjf.workload.lengths import (
    classes,
    from_quantiles,
    from_quartiles,
    lognormal,
    pareto,
    synthetic,
)

N = 100_000


def rng():
    return np.random.default_rng(11)


def test_lognormal_has_the_asked_mean_and_spread_of_logarithms():
    tokens = lognormal(N, 500, 0.8, rng())
    assert tokens.mean() == pytest.approx(500, rel=0.02)
    assert np.log(tokens).std() == pytest.approx(0.8, rel=0.02)
    assert np.median(tokens) == pytest.approx(500 * np.exp(-(0.8**2) / 2), rel=0.02)


def test_pareto_has_the_asked_mean_and_tail():
    mean, alpha = 300, 3.0
    tokens = pareto(N, mean, alpha, rng())
    assert tokens.mean() == pytest.approx(mean, rel=0.03)
    beyond = (1 + 2000 / (mean * (alpha - 1))) ** -alpha
    assert np.mean(tokens > 2000) == pytest.approx(beyond, rel=0.1)


@pytest.mark.parametrize("draw", [lognormal, pareto])
def test_limits_are_kept_and_reached(draw):
    tokens = draw(N, 100, 1.5, rng(), low=10, high=400)
    assert tokens.min() == 10 and tokens.max() == 400


@settings(max_examples=50)
@given(st.floats(0.1, 1e5), st.floats(0.01, 50), st.integers(1, 50))
def test_lengths_are_whole_numbers_of_at_least_1_however_wild_the_spread(mean, spread, n):
    for tokens in (lognormal(n, mean, spread, rng()), pareto(n, mean, 1 + spread, rng())):
        assert tokens.shape == (n,) and tokens.dtype == np.int64 and tokens.min() >= 1


def test_classes_have_their_shares_and_means():
    tokens, class_ids = classes(N, [0.2, 0.5, 0.3], [20, 200, 2000], 0.5, rng())
    for class_id, (share, mean) in enumerate([(0.2, 20), (0.5, 200), (0.3, 2000)]):
        members = class_ids == class_id
        assert members.mean() == pytest.approx(share, abs=0.01)
        assert tokens[members].mean() == pytest.approx(mean, rel=0.02)


def test_quartiles_are_those_of_the_box_plot():
    box = (2, 41, 140, 294, 511)
    tokens = from_quartiles(N, *box, rng())
    assert tokens.min() >= 2 and tokens.max() <= 511
    assert np.quantile(tokens, (0.25, 0.5, 0.75)) == pytest.approx(box[1:4], rel=0.03)


def test_between_the_quantiles_the_logarithm_is_linear():
    tokens = from_quantiles(N, (0, 1), (10, 1000), rng())
    assert np.median(tokens) == pytest.approx(100, rel=0.02)


@given(st.lists(st.integers(1, 10_000), min_size=5, max_size=5))
def test_every_sorted_box_plot_bounds_its_lengths(box):
    low, *_, high = box = sorted(box)
    tokens = from_quartiles(100, *box, rng())
    assert low <= tokens.min() and tokens.max() <= high


def test_synthetic_requests_all_arrive_at_0_and_come_again_with_the_seed():
    requests, again = synthetic(N, rng()), synthetic(N, rng())
    assert np.array_equal(requests.output_tokens, again.output_tokens)
    assert not requests.arrived_at.any()
    assert requests.prompt_tokens.mean() == pytest.approx(150, rel=0.03)
    assert requests.output_tokens.mean() == pytest.approx(200, rel=0.03)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: lognormal(0, 9, 1, rng()), "n is 0; it must be a whole number of at least 1"),
        (lambda: lognormal(3, 0, 1, rng()), "mean is 0; it must be a finite number above 0"),
        (lambda: lognormal(3, 9, -1, rng()), "sigma is -1"),
        (lambda: lognormal(3, 9, 1, rng(), low=0), "low is 0"),
        (lambda: lognormal(3, 9, 1, rng(), low=9, high=8), "low must not be above high"),
        (lambda: pareto(3, 9, 1.0, rng()), "alpha is 1.0; it must be above 1"),
        (lambda: classes(3, [0.5, 0.4], [1, 2], 1, rng()), "sum to 1"),
        (lambda: classes(3, [1.5, -0.5], [1, 2], 1, rng()), "0 or more"),
        (lambda: classes(3, [1.0], [1, 2], 1, rng()), "must be as many, not 1 and 2"),
        (lambda: classes(3, [0.5, 0.5], [1, 0], 1, rng()), "each of means is 0.0"),
        (lambda: from_quantiles(3, (0, 1), (1, 2, 3), rng()), "2 probabilities were given for 3"),
        (lambda: from_quantiles(3, (0, 0.5), (1, 2), rng()), "increase from 0 to 1"),
        (lambda: from_quartiles(3, 5, 4, 6, 7, 8, rng()), "1 or more and sorted"),
        (lambda: from_quartiles(3, 0, 4, 6, 7, 8, rng()), "1 or more and sorted"),
    ],
)
def test_a_bad_parameter_is_named_with_what_is_allowed(draw, message):
    with pytest.raises(InputError) as error:
        draw()
    assert message in str(error.value)
