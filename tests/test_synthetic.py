"""Synthetic arrivals and lengths: the rate, the mean, the tail and the quantiles asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssjf.errors import InputError
from ssjf.workload.synthetic import (
    PROCESSES,
    arrivals,
    from_quartiles,
    lognormal,
    rate_for,
    requests,
)

N = 100_000
RATE = 4.0


def rng():
    return np.random.default_rng(11)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("n", [1, 1000])
def test_every_process_gives_n_sorted_times_from_0_on_and_again_with_the_seed(process, n):
    times = arrivals(process, n, RATE, rng(), cv=3.0)
    assert times.shape == (n,) and times.dtype == np.float64
    assert np.all(np.diff(times, prepend=0.0) >= 0)
    assert np.array_equal(times, arrivals(process, n, RATE, rng(), cv=3.0))


@pytest.mark.parametrize(("process", "cv"), [("gamma", 0.2), ("gamma", 3.0), ("poisson", 1.0)])
def test_gaps_have_the_rate_and_the_variation(process, cv):
    gaps = np.diff(arrivals(process, N, RATE, rng(), cv), prepend=0.0)
    assert gaps.mean() == pytest.approx(1 / RATE, abs=5 * cv / RATE / np.sqrt(N))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)


def test_poisson_counts_have_variance_equal_to_their_mean():
    counts = np.bincount(arrivals("poisson", N, RATE, rng()).astype(int))[:-1]
    assert counts.mean() == pytest.approx(RATE, rel=0.02)
    assert counts.var() == pytest.approx(RATE, rel=0.03)


def test_uniform_points_fill_their_interval_evenly():
    times = arrivals("uniform", N, RATE, rng())
    assert times[-1] <= N / RATE
    assert times.mean() == pytest.approx(N / RATE / 2, rel=0.01)
    assert times.std() == pytest.approx(N / RATE / np.sqrt(12), rel=0.01)


def test_deterministic_gaps_are_all_equal_and_a_burst_has_none():
    assert np.array_equal(arrivals("deterministic", 4, 2.0, rng()), [0.0, 0.5, 1.0, 1.5])
    assert np.array_equal(arrivals("burst", 3, 2.0, rng()), [0.0, 0.0, 0.0])


def test_lognormal_has_the_mean_and_the_spread_of_logarithms():
    tokens = lognormal(N, 500, 0.8, rng())
    assert tokens.mean() == pytest.approx(500, rel=0.02)
    assert np.log(tokens).std() == pytest.approx(0.8, rel=0.02)
    assert np.median(tokens) == pytest.approx(500 * np.exp(-(0.8**2) / 2), rel=0.02)
    assert lognormal(N, 100, 1.5, rng(), high=400).max() == 400


@given(st.floats(0.1, 1e5), st.floats(0.01, 50), st.integers(1, 50))
def test_lengths_are_whole_numbers_of_at_least_1_however_wild_the_spread(mean, spread, n):
    tokens = lognormal(n, mean, spread, rng())
    assert tokens.shape == (n,) and tokens.dtype == np.int64 and tokens.min() >= 1


def test_quartiles_are_those_of_the_box_plot():
    box = (2, 41, 140, 294, 511)
    tokens = from_quartiles(N, *box, rng())
    assert np.quantile(tokens, (0.25, 0.5, 0.75)) == pytest.approx(box[1:4], rel=0.03)
    straight = from_quartiles(N, 10, 10**1.5, 100, 10**2.5, 1000, rng())
    assert np.quantile(straight, 0.375) == pytest.approx(10**1.75, rel=0.02)  # linear in logs


@given(st.lists(st.integers(1, 10_000), min_size=5, max_size=5))
def test_every_sorted_box_plot_bounds_its_lengths(box):
    low, *_, high = box = sorted(box)
    tokens = from_quartiles(100, *box, rng())
    assert low <= tokens.min() and tokens.max() <= high


def test_requests_all_arrive_at_0_and_come_again_with_the_seed():
    made_up, again = requests(N, rng()), requests(N, rng())
    assert np.array_equal(made_up.output_tokens, again.output_tokens)
    assert not made_up.arrived_at.any()
    assert made_up.prompt_tokens.mean() == pytest.approx(150, rel=0.03)
    assert made_up.output_tokens.mean() == pytest.approx(200, rel=0.03)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: arrivals("poison", 3, 1, rng()), "process 'poison'; known: burst, determin"),
        (lambda: arrivals("poisson", 3, 0, rng()), "rate is 0; it must be a finite number above"),
        (lambda: arrivals("uniform", 3, float("nan"), rng()), "rate is nan"),
        (lambda: arrivals("deterministic", 3, "2", rng()), "rate is '2'"),
        (lambda: arrivals("poisson", 3, True, rng()), "rate is True"),
        (lambda: arrivals("gamma", 3, 1, rng(), cv=0), "cv is 0; it must be a finite number"),
        (lambda: arrivals("burst", 2.0, 1, rng()), "n is 2.0; it must be a whole number of at"),
        (lambda: rate_for(0.5, 0), "mean_seconds is 0"),
        (lambda: lognormal(0, 9, 1, rng()), "n is 0; it must be a whole number of at least 1"),
        (lambda: lognormal(3, 0, 1, rng()), "mean is 0; it must be a finite number above 0"),
        (lambda: lognormal(3, 9, -1, rng()), "sigma is -1"),
        (lambda: lognormal(3, 9, 1, rng(), high=0), "high is 0"),
        (lambda: from_quartiles(3, 5, 4, 6, 7, 8, rng()), "1 or more and sorted"),
        (lambda: from_quartiles(3, 0, 4, 6, 7, 8, rng()), "1 or more and sorted"),
    ],
)
def test_a_bad_parameter_is_named_with_what_is_allowed(draw, message):
    with pytest.raises(InputError) as error:
        draw()
    assert message in str(error.value)
