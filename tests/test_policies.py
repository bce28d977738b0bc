"""Policies: what they may know, how they are named, and the promises they make."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssjf.errors import InputError
from ssjf.request import Requests
from ssjf.scheduler import Policy, Queue, known_policies, policy
from ssjf.simulator.profile import profile
from ssjf.simulator.server import Server
from ssjf.simulator.simulate import simulate

PAPER = profile("ssjf-paper")


def backlog(seed, n=400, output=None):
    """An overloaded stretch, so that there is an order to speak of."""
    rng = np.random.default_rng(seed)
    arrived = np.cumsum(rng.exponential(1.0, n))
    predicted = np.ceil(rng.lognormal(4.5, 1.0, n))
    output = rng.integers(1, 400, n) if output is None else output
    return Requests(arrived, rng.integers(1, 50, n), output, {"p": predicted})


def run(requests, chosen, slots=2):
    return simulate(requests, chosen, PAPER, Server(slots), requests.predictions["p"])


class Recorder:
    """A score that remembers every queue it was shown."""

    def __init__(self):
        self.seen = []

    def __call__(self, queue, now):
        self.seen.append(queue)
        return queue.predicted_tokens


def test_a_queue_has_no_true_length():
    known = {"arrived_at", "prompt_tokens", "predicted_tokens", "generated_tokens",
             "in_flight", "in_flight_tokens"}  # fmt: skip
    assert {field.name for field in fields(Queue)} == known


@pytest.mark.parametrize("in_time", ["constant", "linear"])
def test_a_static_key_is_blind_to_the_truth(in_time):
    """Workloads that differ in their true lengths alone look the same to a policy."""
    shown = []
    for output in (np.full(400, 7), np.arange(1, 401)):
        recorder = Recorder()
        run(backlog(0, output=output), Policy("recorder", recorder, in_time))
        shown.append(recorder.seen)
    for one, other in zip(*shown, strict=True):
        for field in fields(Queue):
            assert np.array_equal(getattr(one, field.name), getattr(other, field.name))


def test_a_policy_asked_at_every_decision_sees_what_waits_and_nothing_ahead():
    requests = backlog(1)
    asked = []

    def score(queue, now):
        asked.append((queue, now))
        return queue.predicted_tokens

    run(requests, Policy("recorder", score, "any"))
    assert len(asked) > 100
    for queue, now in asked:
        assert (queue.arrived_at <= now + 1e-12).all()
        assert (queue.generated_tokens == 0).all()  # memory is unlimited: none was preempted
        rows = np.searchsorted(requests.arrived_at, queue.arrived_at)
        assert (requests.predictions["p"][rows] == queue.predicted_tokens).all()


@pytest.mark.parametrize("name", ["ssjf", "ssjf-aged", "hrrn", "ssjf-bounded"])
def test_a_policy_that_reads_predictions_asks_for_them(name):
    with pytest.raises(InputError, match="needs predicted lengths"):
        simulate(backlog(0), policy(name), PAPER)


@pytest.mark.parametrize("name", known_policies())
def test_every_known_name_is_a_policy_that_serves_all(name):
    assert np.isfinite(run(backlog(2), policy(name)).finished_at).all()


@pytest.mark.parametrize("name", ["nothing", "", "fcfs:2", "sjf:", "ssjf-aged-more"])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(InputError, match="unknown policy") as error:
        policy(name)
    for known in (*known_policies(), "module:function"):
        assert known in str(error.value)


@pytest.mark.parametrize("name", ["ssjf-aged:abc", "ssjf-aged:-1", "ssjf-bounded:nan"])
def test_a_value_must_be_a_number(name):
    with pytest.raises(InputError, match="is not a finite number of at least 0"):
        policy(name)


def test_a_value_changes_the_order():
    requests = backlog(3)
    runs = [run(requests, policy(f"ssjf-aged:{rate}")) for rate in (0, 5, 1e9)]
    assert (runs[0].finished_at == run(requests, policy("ssjf")).finished_at).all()
    assert (runs[1].finished_at != runs[0].finished_at).any()
    assert (runs[2].finished_at == run(requests, policy("fcfs")).finished_at).all()


OWN = """
import numpy as np

from ssjf.scheduler import Policy


def longest(queue, now):
    return -queue.predicted_tokens


def static(queue, now):
    return -queue.predicted_tokens


static.in_time = "constant"


def patient(queue, now):
    return -queue.predicted_tokens


patient.in_time = "constant"
patient.promote_after = lambda queue: np.full(len(queue), 5.0)


def misspelt(queue, now):
    return queue.arrived_at


misspelt.in_time = "static"


def scalar(queue, now):
    return 1.0


def hole(queue, now):
    return np.full(len(queue), np.nan)


ready_made = Policy("ready made", static, "constant")
"""


@pytest.fixture
def own(tmp_path, monkeypatch, request):
    """A module of policies in the working directory, under a name of its own."""
    name = f"own_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # undone afterwards, with what the registry adds
    return name


def test_an_own_function_orders(own):
    requests = backlog(4)
    chosen = policy(f"{own}:longest")
    assert (chosen.name, chosen.in_time) == (f"{own}:longest", "any")
    found = run(requests, chosen)
    mirrored = Policy("mirror", lambda queue, now: -queue.predicted_tokens, "constant")
    assert (found.finished_at == run(requests, mirrored).finished_at).all()
    for name in ("static", "ready_made"):
        assert (run(requests, policy(f"{own}:{name}")).finished_at == found.finished_at).all()


def test_attributes_of_an_own_function_are_the_policys(own):
    assert policy(f"{own}:static").in_time == "constant"
    patient = policy(f"{own}:patient")
    assert patient.promote_after is not None
    waited = run(backlog(4), patient), run(backlog(4), policy(f"{own}:static"))
    longest = [(r.scheduled_at - r.requests.arrived_at).max() for r in waited]
    assert longest[0] < longest[1]
    with pytest.raises(InputError, match="in_time is 'static'; it must be 'constant'"):
        policy(f"{own}:misspelt")


def test_what_an_own_function_returns_is_checked(own):
    with pytest.raises(InputError, match=rf"{own}:scalar returned scores of shape \(\)"):
        run(backlog(4), policy(f"{own}:scalar"))
    with pytest.raises(InputError, match=rf"{own}:hole returned a score that is not a number"):
        run(backlog(4), policy(f"{own}:hole"))


def test_a_module_or_function_that_is_not_there(own):
    with pytest.raises(InputError, match=f"'absent' is no function of module '{own}'"):
        policy(f"{own}:absent")
    with pytest.raises(InputError, match=r"unknown policy 'no_such_module:f'.*known: fcfs"):
        policy("no_such_module:f")


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.05, 0.2, 1.0]), st.sampled_from([1, 3]))
def test_past_its_bound_nobody_younger_goes_first(seed, seconds_per_token, slots):
    """After factor x predicted seconds a request yields only to those that came before it."""
    requests = backlog(seed, n=150)
    done = run(requests, policy(f"ssjf-bounded:{seconds_per_token}"), slots)
    bound = requests.arrived_at + seconds_per_token * requests.predictions["p"]
    for i in range(len(requests)):
        younger = done.scheduled_at[i + 1 :]
        past = (younger > bound[i] + 1e-9) & (younger < done.scheduled_at[i])
        assert not past.any()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from([0.5, 5.0, 50.0]), st.sampled_from([1, 3]))
def test_ageing_bounds_who_may_overtake(seed, rate, slots):
    """A request of p predicted tokens is overtaken only by arrivals within p / rate seconds."""
    requests = backlog(seed, n=150)
    done = run(requests, policy(f"ssjf-aged:{rate}"), slots)
    overtaken = 0
    for i in range(len(requests)):
        overtakes = done.scheduled_at[i + 1 :] < done.scheduled_at[i]
        later = requests.arrived_at[i + 1 :][overtakes] - requests.arrived_at[i]
        assert (later < requests.predictions["p"][i] / rate).all()
        overtaken += len(later)
    assert overtaken or rate == 50.0
