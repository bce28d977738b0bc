"""Online calibration: right about lengths, blind to nothing new, and never of another order."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from ssjf.proxy.calibration import FEWEST, LEAST_SLOPE, PRIOR, Calibrator, Curve

lengths = st.floats(1e-3, 1e7)
points = st.lists(st.tuples(lengths, lengths), max_size=60)


def taught(pairs, window=1000):
    found = Calibrator(window)
    for predicted, output in pairs:
        found.observe(predicted, output)
    return found


def stream(n, distort=lambda x: x, noise=0.0, seed=0):
    """n pairs: predictions, and lengths that are a function of them times an error."""
    rng = np.random.default_rng(seed)
    predicted = np.exp(rng.normal(5, 0.8, n))
    return [*zip(predicted, distort(predicted) * np.exp(rng.normal(0, noise, n)), strict=True)]


# The order


@given(points, st.lists(lengths, min_size=2, max_size=20))
def test_the_order_of_predictions_is_kept_and_no_tie_is_made(pairs, asked):
    asked = np.unique(asked)
    asked = asked[np.append(True, asked[1:] > asked[:-1] * (1 + 1e-9))]
    found = taught(pairs).calibrate(asked)
    assert (np.diff(found) > 0).all() and (found > 0).all() and np.isfinite(found).all()


@given(points, st.lists(lengths, min_size=1, max_size=9))
def test_equal_predictions_stay_equal(pairs, asked):
    found = taught(pairs).calibrate([*asked, *asked])
    assert np.array_equal(*np.split(found, 2))


def test_a_rank_correlation_does_not_change_at_all():
    """What a calibrator can never do for SSJF: its order is that of the predictions."""
    pairs = np.array(stream(400, noise=1.0))
    found = taught(pairs).calibrate(pairs[:, 0])
    before, after = (kendalltau(x, pairs[:, 1]).statistic for x in (pairs[:, 0], found))
    assert before == after
    assert not np.allclose(found, pairs[:, 0])


# What it learns


DISTORTIONS = {
    "factor": lambda x: 3 * x,
    "power": lambda x: 2 * x**0.6,
    "steeper": lambda x: x**1.5 / 9,
    "step": lambda x: np.where(x < 150, 20.0, 400.0) * x**0.1,
}


@pytest.mark.parametrize("distort", DISTORTIONS.values(), ids=DISTORTIONS)
def test_a_monotone_distortion_is_undone(distort):
    """Without noise, within 3 % over the middle 90 % of the predictions (a step is steep)."""
    found = taught(stream(3000, distort), 5000)
    asked = np.quantile([p for p, _ in stream(3000)], np.linspace(0.05, 0.95, 50))
    miss = abs(np.log(found.calibrate(asked) / distort(asked)))
    assert np.median(miss) < 0.03
    if distort is not DISTORTIONS["step"]:
        assert miss.max() < 0.03


def test_noise_is_averaged_away():
    truth = DISTORTIONS["power"]
    pairs = stream(3000, truth, noise=0.5)
    found = taught(pairs, 5000)
    asked = np.array([p for p, _ in stream(300, seed=1)])
    before, after = (abs(np.log(x / truth(asked))).mean() for x in (asked, found.calibrate(asked)))
    assert after < 0.08 < 0.5 < before


def test_it_forgets_once_the_window_has_passed():
    """The very same as a calibrator that has never seen what came before."""
    window, asked = 200, np.exp(np.linspace(3, 7, 30))
    old, new = stream(500, lambda x: 5 * x), stream(window, lambda x: x / 2, seed=1)
    both, fresh = taught([*old, *new], window), taught(new, window)
    assert np.array_equal(both.calibrate(asked), fresh.calibrate(asked))
    assert len(both) == window
    half = taught([*old, *new[: window // 4]], window)
    assert np.median(half.calibrate(asked) / asked) > 1  # a quarter of the window does not do it


def test_few_observations_correct_little():
    pairs = stream(400, lambda x: 4 * x)
    asked = np.array([10.0, 150.0, 900.0])
    assert np.array_equal(taught(pairs[: FEWEST - 1]).calibrate(asked), asked)
    assert taught(pairs[:FEWEST]).calibrate(asked[1]) == pytest.approx(4 * asked[1], rel=0.3)
    logs = np.log(np.array(sorted(pairs[:PRIOR])))
    curve = Curve(*logs.T)
    assert curve.weight == 0.5 and Curve(*np.tile(logs, (200, 1)).T).weight == (1 - LEAST_SLOPE)


def test_constant_input():
    """Equal predictions have one answer: near the lengths' geometric mean."""
    found = taught([(100, y) for y in [150, 250] * 500])
    assert found.calibrate([100.0])[0] == pytest.approx(math.sqrt(150 * 250), rel=0.05)
    same = taught([(100, 300)] * 1000)
    assert same.calibrate([100.0])[0] == pytest.approx(300)
    assert np.diff(same.calibrate([99.0, 100.0, 101.0])).min() > 0


def test_it_is_deterministic_and_fits_only_when_it_is_asked():
    pairs = stream(300, noise=0.5)
    asked = [50.0, 100.0]
    often = Calibrator()
    for pair in pairs:
        often.observe(*pair)
        often.calibrate(asked)
    assert np.array_equal(often.calibrate(asked), taught(pairs).calibrate(asked))
    assert taught(pairs)._curve is None


# What is remembered


@pytest.mark.parametrize("odd", [math.nan, math.inf, 0, -3, None, "a", []], ids=repr)
def test_what_is_no_length_is_refused(odd):
    found = taught(stream(100))
    for point in ((odd, 5), (5, odd)):
        with pytest.raises((ValueError, TypeError)):
            found.observe(*point)
    assert len(found) == 100


def test_a_state_goes_through_json():
    found = taught(stream(150, lambda x: 2 * x, noise=0.3), 100)
    again = Calibrator.from_state(json.loads(json.dumps(found.state())), 100)
    asked = np.exp(np.linspace(0, 9, 40))
    assert np.array_equal(again.calibrate(asked), found.calibrate(asked))
    assert again.state() == found.state()
    for each in (found, again):
        each.observe(7, 70)
    assert again.state() == found.state()


def test_a_state_of_an_earlier_version_is_read():
    earlier = {"format": 1, "window": 1000, "method": "isotonic", "ignored": 2,
               "predicted_tokens": [5.0, 6.0], "output_tokens": [7.0, 8.0]}  # fmt: skip
    assert Calibrator.from_state(earlier).state() == taught([(5, 7), (6, 8)]).state()


GOOD = Calibrator().state()
BAD = [[], {}, GOOD | {"output_tokens": [5]}, GOOD | {"output_tokens": 5},
       {"predicted_tokens": [0], "output_tokens": [5]}]  # fmt: skip


@pytest.mark.parametrize("state", BAD, ids=repr)
def test_a_wrong_state_is_refused(state):
    with pytest.raises((ValueError, TypeError, KeyError)):
        Calibrator.from_state(state)


def test_importing_it_is_light():
    code = "import sys, ssjf.proxy.calibration; print(*{n.split('.')[0] for n in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"sklearn", "scipy", "pandas", "numba", "torch"} & {*done.stdout.split()}
