"""Arrival processes: their mean rate, their variability, and what a replayed trace keeps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssjf.errors import InputError
from ssjf.workload.arrivals import (
    PROCESSES,
    arrivals,
    burst,
    deterministic,
    gamma,
    poisson,
    replay,
    uniform,
)

RATE = 4.0
TRACE = np.array([10.0, 11.0, 11.5, 14.0])
SPECS = [
    {"process": "poisson", "rate": RATE},
    {"process": "gamma", "rate": RATE, "cv": 3.0},
    {"process": "gamma", "rate": RATE, "cv": 0.3},
    {"process": "uniform", "rate": RATE},
    {"process": "deterministic", "rate": RATE},
    {"process": "burst"},
    {"process": "replay", "trace_arrived_at": TRACE, "start": "random"},
]


def rng():
    return np.random.default_rng(7)


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("n", [1, 2, 1000])
def test_every_process_gives_n_sorted_times_from_0_on(spec, n):
    times = arrivals(spec, n, rng())
    assert times.shape == (n,) and times.dtype == np.float64
    assert np.all(np.diff(times, prepend=0.0) >= 0)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_same_seed_gives_the_same_times(spec):
    assert np.array_equal(arrivals(spec, 50, rng()), arrivals(spec, 50, rng()))


def test_every_process_of_the_registry_is_tested():
    assert {spec["process"] for spec in SPECS} == set(PROCESSES)


@pytest.mark.parametrize("cv", [0.2, 1.0, 3.0])
def test_gamma_gaps_have_the_asked_rate_and_variation(cv):
    n = 200_000
    gaps = np.diff(gamma(n, RATE, cv, rng()), prepend=0.0)
    assert gaps.mean() == pytest.approx(1 / RATE, abs=5 * cv / RATE / np.sqrt(n))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)


def test_poisson_counts_have_variance_equal_to_their_mean():
    times = poisson(200_000, RATE, rng())
    counts = np.bincount(times.astype(int))[:-1]
    assert counts.mean() == pytest.approx(RATE, rel=0.02)
    assert counts.var() == pytest.approx(RATE, rel=0.03)


def test_uniform_points_fill_their_interval_evenly():
    n = 100_000
    times = uniform(n, RATE, rng())
    assert times[-1] <= n / RATE
    assert times.mean() == pytest.approx(n / RATE / 2, rel=0.01)
    assert times.std() == pytest.approx(n / RATE / np.sqrt(12), rel=0.01)


def test_deterministic_gaps_are_all_equal_and_a_burst_has_none():
    assert np.array_equal(deterministic(4, 2.0), [0.0, 0.5, 1.0, 1.5])
    assert np.array_equal(burst(3), [0.0, 0.0, 0.0])


def test_replay_keeps_the_recorded_gaps():
    assert np.array_equal(replay(TRACE, 4), TRACE - TRACE[0])
    assert np.array_equal(replay(TRACE, 2, start=2), [0.0, 2.5])


def test_replay_loops_one_mean_gap_after_the_last_arrival():
    gaps = np.diff(replay(TRACE, 9))
    assert gaps == pytest.approx([1, 0.5, 2.5, 4 / 3, 1, 0.5, 2.5, 4 / 3])


def test_a_looping_replay_keeps_the_recorded_rate():
    recorded_gap = np.diff(TRACE).mean()
    assert np.diff(replay(TRACE, 40_001)).mean() == pytest.approx(recorded_gap)


@given(st.floats(0.01, 100), st.integers(1, 50), st.integers(0, 3))
def test_replay_at_a_scale_divides_the_times_by_it(scale, n, start):
    once, scaled = replay(TRACE, n, 1.0, start), replay(TRACE, n, scale, start)
    assert np.allclose(scaled * scale, once)
    assert np.all(np.diff(scaled) > 0) and scaled[0] == 0


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30), st.integers(1, 100))
def test_a_replay_of_any_sorted_trace_is_sorted(times, n):
    trace = np.sort(times)
    if n > len(trace) and trace[0] == trace[-1]:
        with pytest.raises(InputError, match="cannot be looped"):
            replay(trace, n)
    else:
        assert np.all(np.diff(replay(trace, n)) >= 0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"process": "poison", "rate": 1}, "unknown arrival process 'poison'; known: burst, "),
        ({"rate": 1}, "unknown arrival process None"),
        ({"process": "gamma", "rate": 1, "cw": 1}, "'gamma': 'cw'; known: cv, rate"),
        ({"process": "burst", "rate": 1}, "'burst': 'rate'; known: (none)"),
        ({"process": "poisson", "rate": 1, "rng": 1}, "'poisson': 'rng'; known: rate"),
        ({"process": "gamma", "rate": 1}, "'gamma' needs the option 'cv'"),
        ({"process": "poisson", "rate": 0}, "rate is 0; it must be a finite number above 0"),
        ({"process": "uniform", "rate": -1.0}, "rate is -1.0"),
        ({"process": "deterministic", "rate": float("nan")}, "rate is nan"),
        ({"process": "poisson", "rate": float("inf")}, "rate is inf"),
        ({"process": "poisson", "rate": "2"}, "rate is '2'"),
        ({"process": "poisson", "rate": True}, "rate is True"),
        ({"process": "gamma", "rate": 1, "cv": 0}, "cv is 0; it must be a finite number above 0"),
        ({"process": "replay", "trace_arrived_at": []}, "at least one time"),
        ({"process": "replay", "trace_arrived_at": [2, 1]}, "sorted order"),
        ({"process": "replay", "trace_arrived_at": [0, float("nan")]}, "finite times"),
        ({"process": "replay", "trace_arrived_at": TRACE, "scale": 0}, "scale is 0"),
        ({"process": "replay", "trace_arrived_at": TRACE, "start": 4}, "a row from 0 to 3"),
        ({"process": "replay", "trace_arrived_at": TRACE, "start": "end"}, "start is 'end'"),
    ],
)
def test_a_bad_option_is_named_with_what_is_allowed(spec, message):
    with pytest.raises(InputError) as error:
        arrivals(spec, 3, rng())
    assert message in str(error.value)


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("n", [0, -1, 2.0, True])
def test_a_count_below_1_or_not_whole_is_refused(spec, n):
    with pytest.raises(InputError, match=r"n is .*; it must be a whole number of at least 1"):
        arrivals(spec, n, rng())
