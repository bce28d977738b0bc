"""Metrics against hand-made runs, and against plain recomputation of random ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssjf.analysis import metrics
from ssjf.errors import InputError
from ssjf.request import Completions, Requests

NAN = float("nan")


def run(arrived, scheduled, first, finished, tokens):
    n = len(arrived)
    requests = Requests(np.array(arrived, float), np.ones(n), np.array(tokens))
    stamps = (np.array(column, float) for column in (scheduled, first, finished))
    return Completions(requests, *stamps, np.zeros(n, np.int64))


@pytest.fixture
def three():
    """Two served, the last lost."""
    return run([0, 1, 2], [0, 4, NAN], [1, 5, NAN], [4, 5, NAN], [4, 1, 9])


def random_run(seed, n):
    """n requests with stamps on a coarse grid, so that many events coincide."""
    rng = np.random.default_rng(seed)
    arrived = np.sort(rng.integers(0, 2 * n, n))
    scheduled = arrived + rng.integers(0, 10, n)
    first = scheduled + rng.integers(1, 4, n)
    finished = (first + rng.integers(0, 9, n)).astype(float)
    finished[rng.random(n) < 0.1] = NAN
    return run(arrived, scheduled, first, finished, rng.integers(1, 50, n))


def test_quantities_of_a_run_done_by_hand(three):
    found = metrics.per_request(three, [2.0, 1.0, 1.0])
    assert found["jct"].tolist() == [4, 4]
    assert found["waiting"].tolist() == [0, 3]
    assert found["ttft"].tolist() == [1, 4]
    assert found["tpot"][0] == 1
    assert np.isnan(found["tpot"][1])  # one token has no gap
    assert found["normalised_latency"].tolist() == [1, 4]
    assert found["slowdown"].tolist() == [2, 4]


def test_totals_of_a_run_done_by_hand(three):
    found = metrics.summarise(three, [2.0, 1.0, 1.0])
    assert (found["completed"], found["lost"]) == (2, 1)
    assert found["completed_per_second"] == 2 / 5
    assert found["queue_depth_mean"] == 3 / 5
    assert found["queue_depth_max"] == 1
    assert found["mean_running"] == 5 / 5
    assert found["jain_slowdown"] == pytest.approx(6**2 / (2 * (2**2 + 4**2)))
    assert found["tpot_mean"] == found["tpot_max"] == 1


def test_a_burst_is_as_deep_as_what_it_leaves_waiting():
    burst = run([0] * 5, [0, 0, 1, 1, 2], [1, 1, 2, 2, 3], [1, 1, 2, 2, 3], [1] * 5)
    assert metrics.summarise(burst, np.ones(5))["queue_depth_max"] == 3


@given(st.integers(0, 10**6), st.integers(1, 60))
def test_depth_is_that_of_watching_the_queue(seed, n):
    completions = random_run(seed, n)
    served = ~np.isnan(completions.finished_at)
    arrived = completions.requests.arrived_at[served]
    scheduled = completions.scheduled_at[served]
    found = metrics.summarise(completions, np.ones(n))
    if not served.any():
        assert np.isnan(found["queue_depth_max"])
        return
    # Stamps are whole seconds: between two of them the queue stands still.
    seconds = np.arange(arrived[0], completions.finished_at[served].max())
    depth = [((arrived <= t) & (scheduled > t)).sum() for t in seconds]
    assert found["queue_depth_mean"] == pytest.approx(np.mean(depth))
    assert found["queue_depth_max"] == max(depth)


@given(st.integers(0, 10**6), st.integers(1, 60), st.sampled_from([0.0, 0.1, 0.5]))
def test_levels_are_numpys_over_what_was_served_after_the_warmup(seed, n, warmup):
    completions = random_run(seed, n)
    jct = (completions.finished_at - completions.requests.arrived_at)[int(warmup * n) :]
    jct = jct[~np.isnan(jct)]
    found = metrics.summarise(completions, np.ones(n), warmup)
    if not len(jct):
        assert np.isnan(found["jct_mean"])
        return
    for level, q in (("p50", 50), ("p90", 90), ("p99", 99), ("max", 100)):
        assert found[f"jct_{level}"] == pytest.approx(np.percentile(jct, q))
    assert found["jct_mean"] == pytest.approx(jct.mean())


@given(st.lists(st.floats(0.1, 1e4), min_size=1, max_size=200))
def test_throughput_25_is_the_authors(finished):
    ordered = sorted(finished)
    place = int(np.percentile(list(range(len(ordered))), 25))
    assert metrics.throughput_25(np.array(finished)) == place / ordered[place]


def test_throughput_25_rewards_order_and_not_work():
    jobs = np.array([8.0, 1, 1, 1, 1])
    fcfs, sjf = np.cumsum(jobs), np.cumsum(np.sort(jobs))
    assert fcfs.max() == sjf.max()
    assert metrics.throughput_25(sjf) > 4 * metrics.throughput_25(fcfs)


def test_the_warmup_is_dropped_by_arrival_and_only_from_the_requests(three):
    alone = np.ones(3)
    cold, warm = (metrics.summarise(three, alone, w) for w in (0.0, 0.34))
    assert warm["waiting_mean"] == 3
    for total in ("completed", "lost", "queue_depth_mean", "completed_per_second"):
        assert warm[total] == cold[total]


def test_a_run_that_served_nothing_has_no_numbers():
    nothing = run([0.0], [NAN], [NAN], [NAN], [5])
    found = metrics.summarise(nothing, [1.0])
    assert (found.pop("completed"), found.pop("lost")) == (0, 1)
    assert all(np.isnan(value) for value in found.values())
    assert np.isnan(metrics.slowdown_quantiles(nothing, [1.0])[1]).all()


def test_slowdown_quantiles_are_a_distribution_to_the_far_tail():
    slowdown = np.arange(1.0, 100_002)
    n = len(slowdown)
    completions = run(np.zeros(n), np.zeros(n), slowdown, slowdown, np.ones(n))
    probabilities, values = metrics.slowdown_quantiles(completions, np.ones(n))
    assert probabilities.shape == values.shape == (61,)
    assert probabilities[-1] == pytest.approx(0.9999)
    assert (np.diff(probabilities) > 0).all()
    assert values == pytest.approx(1 + probabilities * 100_000)


@pytest.mark.parametrize("warmup", [-0.1, 1.0, NAN])
def test_a_bad_warmup_is_refused(three, warmup):
    with pytest.raises(InputError, match="from 0 to below 1"):
        metrics.summarise(three, np.ones(3), warmup)


@pytest.mark.parametrize("alone", [[1.0], [1.0, 0.0, 1.0], [1.0, NAN, 1.0]])
def test_bad_times_alone_are_refused(three, alone):
    with pytest.raises(InputError, match="must be 3 times above 0"):
        metrics.summarise(three, alone)
