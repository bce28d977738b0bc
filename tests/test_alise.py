"""ALISE's time model, levels, ageing and re-estimation; what each promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssjf.errors import InputError
from ssjf.request import Requests
from ssjf.scheduler import OraclePolicy, Policy, Queue, policy
from ssjf.scheduler.alise import (
    DEFAULT_BOUNDARIES,
    TOKENS,
    Remaining,
    TimeModel,
    alise,
    reestimated,
)
from ssjf.simulator.core.setting import time_model
from ssjf.simulator.profile import Profile
from ssjf.simulator.server import Server
from ssjf.simulator.simulate import simulate

MODEL = TimeModel(1e-4, 1e-6, 2e-2)
TOKENS_OF = st.integers(1, 3_000)


def queue(prompt=100, predicted=50.0, generated=0, arrived=0.0):
    columns = (np.atleast_1d(each) for each in (arrived, prompt, predicted, generated))
    return Queue(*np.broadcast_arrays(*columns))


@given(TOKENS_OF, TOKENS_OF)
def test_with_context_growth_it_is_what_a_request_takes_alone(prompt, output):
    """The step-time model of the machine, summed over the request's steps."""
    machine = Profile("any", 0.02, 1e-3, 1e-6, 1e-4)
    expected = machine.alone_seconds(np.array([prompt]), np.array([output]))
    found = time_model(machine).remaining_seconds(
        np.array([prompt]), np.array([float(output)]), np.array([0]), context_growth=True
    )
    assert found == pytest.approx(expected, rel=1e-9)


@given(TOKENS_OF, TOKENS_OF)
def test_the_papers_form_leaves_out_the_growth_of_the_context(prompt, output):
    """By alpha n (n - 1) / 2; and it is s T0 + n (alpha s + beta)."""
    given_to = (np.array([prompt]), np.array([float(output)]), np.array([0]))
    fixed, growing = (MODEL.remaining_seconds(*given_to, grows) for grows in (False, True))
    assert fixed == pytest.approx(prompt * 1e-4 + output * (1e-6 * prompt + 2e-2))
    assert growing - fixed == pytest.approx(1e-6 * output * (output - 1) / 2, abs=1e-9)


@given(TOKENS_OF, st.integers(2, 500), st.booleans())
def test_every_token_brings_the_end_nearer(prompt, total, grows):
    generated = np.arange(total)
    left = MODEL.remaining_seconds(np.full(total, prompt), np.full(total, total), generated, grows)
    assert (np.diff(left) < 0).all() and left[-1] > 0


@given(st.floats(0.01, 5_000), st.integers(0, 100_000))
def test_a_prediction_that_is_outlived_doubles_until_it_is_not(predicted, generated):
    total = reestimated(np.array([predicted]), np.array([generated]))[0]
    assert total > generated
    assert total == max(predicted, 1.0) or total <= 2 * generated
    assert np.log2(total / max(predicted, 1.0)) % 1 == pytest.approx(0, abs=1e-9)


def test_no_request_is_almost_done_for_ever():
    """What is believed to be left returns to as much as was generated, again and again."""
    generated = np.arange(2_000)
    left = reestimated(np.full(2_000, 10.0), generated) - generated
    jumps = np.flatnonzero(np.diff(left) > 0) + 1
    assert jumps.tolist() == [10 * 2**k for k in range(8)]
    assert (left[jumps] == jumps).all()


def test_levels_are_queues_served_in_order_of_arrival():
    score = Remaining(TOKENS, boundaries=(10.0, 100.0))
    found = score(queue(predicted=np.array([5.0, 9.99, 10.0, 99.0, 100.0, 1e6])), 0.0)
    assert found.tolist() == [0, 0, 1, 1, 2, 2]


@settings(max_examples=50)
@given(st.floats(0, 1e4), st.floats(0, 1e3), st.floats(0.1, 100), st.floats(1, 1e5))
def test_ageing_moves_up_a_level_at_a_time_and_never_down(arrived, waited, seconds, predicted):
    score = Remaining(MODEL, boundaries=DEFAULT_BOUNDARIES, promotion_seconds=seconds)
    one = queue(predicted=predicted, arrived=arrived)
    fresh, aged, later = (
        score(one, arrived + after)[0] for after in (0.0, waited, waited + 1.001 * seconds)
    )
    assert 0 <= later <= aged <= fresh <= len(DEFAULT_BOUNDARIES)
    assert later >= aged - 2 and (later < aged or aged == 0)
    assert score(one, arrived + 1.001 * seconds * len(DEFAULT_BOUNDARIES))[0] == 0


def test_without_a_time_model_it_takes_round_numbers():
    assert Remaining()(queue(), 0.0) > 0


def test_the_machine_sets_the_times_of_a_policy_that_has_none():
    """Levels in seconds mean something: a slower machine fills higher ones."""
    rng = np.random.default_rng(0)
    requests = Requests(np.sort(rng.uniform(0, 2, 60)), np.ones(60), rng.integers(1, 60, 60))
    given_to = (Server(2), requests.output_tokens.astype(float))
    machine = Profile("machine", 0.02)
    edges = (0.3, 0.6)
    found, same, other = (
        simulate(requests, alise(boundaries=edges, time=time), machine, *given_to)
        for time in (None, time_model(machine), TimeModel(0.0, 0.0, 0.2))
    )
    assert (found.finished_at == same.finished_at).all()
    assert (found.finished_at != other.finished_at).any()


def test_names_and_kinds():
    assert isinstance(policy("srpt"), OraclePolicy)
    for name in ("alise", "alise:3", "alise-context", "ssrpt"):
        assert policy(name).preempts and not isinstance(policy(name), OraclePolicy)
    assert policy("alise:3").score.promotion_seconds == 3.0
    assert not policy("alise").score.context_growth
    assert policy("alise-context").score.context_growth
    assert not any(policy(name).preempts for name in ("fcfs", "ssjf", "sjf", "hrrn"))


@pytest.mark.parametrize("predicted", [0.0, -1.0, np.inf, np.nan])
def test_predictions_must_be_lengths(predicted):
    with pytest.raises(InputError, match="must be finite tokens above 0"):
        policy("alise").scores(queue(predicted=predicted), 0.0)


def test_simulate_serves_a_policy_that_preempts():
    """The same call for all policies; without the word, the order alone."""
    requests = Requests([0.0, 0.5], [1, 1], [100, 1])
    machine, predicted = Profile("machine", 0.02), np.array([100.0, 1.0])
    done = simulate(requests, policy("alise"), machine, Server(1), predicted)
    assert done.preemptions.tolist() == [1, 0]
    patient = Policy("patient", policy("alise").score)
    assert simulate(requests, patient, machine, Server(1), predicted).preemptions.sum() == 0


OWN = """
def longest(queue, now):
    return -queue.predicted_tokens


longest.preempts = True
"""


def test_an_own_function_may_preempt(tmp_path, monkeypatch):
    (tmp_path / "own_preemptive.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    chosen = policy("own_preemptive:longest")
    assert chosen.preempts
    requests = Requests([0.0, 0.5], [1, 1], [100, 10])
    done = simulate(requests, chosen, Profile("m", 0.02), Server(1), np.array([1.0, 2.0]))
    assert done.preemptions.tolist() == [1, 0]


def test_equal_scores_never_preempt():
    requests = Requests(np.arange(10) * 0.1, np.ones(10), np.full(10, 40))
    chosen = Policy("all alike", lambda queue, now: np.zeros(len(queue)), preempts=True)
    done = simulate(requests, chosen, Profile("m", 0.02), Server(1), np.ones(10))
    assert done.preemptions.sum() == 0 and (np.diff(done.finished_at) > 0).all()
