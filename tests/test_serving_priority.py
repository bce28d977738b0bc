"""Keys: the order of the package's own policies, and how far a request may be overtaken."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssjf.errors import InputError
from ssjf.scheduler import Queue, policy
from ssjf.serving.options import ServeOptions
from ssjf.serving.priority import Keys
from ssjf.simulator.contract import Contract

TIMES = st.floats(0, 1e8)  # seconds that a machine is up: three years
LENGTHS = st.floats(1e-6, 1e7)
RATES = st.floats(0.1, 1000)
STATIC = ["ssjf", "fcfs", "ssjf-aged:34", "headstart:10", "gamma-boost", "headroom"]


def keys(name):
    return Keys(ServeOptions(policy=name))


@given(TIMES, st.floats(0, 1e5), st.floats(1, 1e4), LENGTHS, RATES)
def test_with_ageing_none_is_overtaken_by_what_arrives_later_than_its_length_says(
    first, gap, long, short, rate
):
    """To a thousandth of a token; vLLM breaks ties by arrival."""
    found = keys(f"ssjf-aged:{rate!r}")
    later = first + (long + 0.01) / rate + gap
    assert found.priority(first, long) <= found.priority(later, short)


@given(TIMES, LENGTHS, LENGTHS, st.sampled_from(STATIC))
def test_of_two_that_arrive_at_once_the_shorter_never_goes_later(at, one, other, name):
    found = keys(name)
    short, long = sorted([one, other])
    assert found.priority(at, short) <= found.priority(at, long)


@pytest.mark.parametrize("name", STATIC)
def test_the_order_is_that_of_the_policy_that_the_simulator_runs(name):
    rng = np.random.default_rng(0)
    arrived, predicted = np.sort(rng.uniform(0, 60, 400)), rng.integers(1, 1020, 400) * 1.0
    found = keys(name)
    none = np.zeros(400, np.int64)
    queue = Queue(arrived + 1e5, none, predicted, none, none, np.zeros(400))
    scores = policy(name).scores(queue, 1e5 + 60.0)
    priorities = [found.priority(a, p) for a, p in zip(arrived + 1e5, predicted, strict=True)]
    order, expected = np.lexsort((arrived, priorities)), np.lexsort((arrived, scores))
    assert np.abs(scores[order] - scores[expected]).max() <= 0.001  # what rounding may change
    assert len(set(priorities)) > 1


@given(TIMES, LENGTHS, st.sampled_from([*STATIC, "ssjf-aged:1e12", "gamma-boost:1e9"]))
def test_a_key_is_a_whole_number_that_json_readers_keep(at, length, name):
    found = keys(name).priority(at, length)
    assert type(found) is int and 0 <= found < 2**53


# Options


VALID = {
    "client_priority": st.sampled_from(["override", "respect", "trust"]),
    "client_limit": st.sampled_from(["respect", "ignore"]),
    "learn": st.just("refit"),
    "log_level": st.sampled_from(["debug", "warning", "error"]),
    "deadline_ms": st.none() | st.floats(0.1, 60_000),
    "policy": st.sampled_from(STATIC),
    "save_seconds": st.floats(0.1, 86_400), "max_state_mb": st.floats(0.0001, 10_000),
    "max_body_mb": st.floats(0.001, 1000),
    "proxy": st.text("ab/.", min_size=1), "state": st.text("ab/."),
}  # fmt: skip


@given(st.fixed_dictionaries({}, optional=VALID))
def test_options_survive_the_environment(given):
    options = ServeOptions(**given)
    told = options.environment()
    assert ServeOptions.from_environment(told | {"HOME": "/"}) == options
    assert len(told) <= len(given)


@pytest.mark.parametrize(
    "name, text, says",
    [
        ("SPEED", "1", "unknown variable 'SSJF_SERVE_SPEED'; known: SSJF_SERVE_CLIENT_LIMIT"),
        ("LEARN", "all", "learn is 'all'; it must be 'none' or 'refit'"),
        ("DEADLINE_MS", "soon", "deadline_ms is 'soon'; it must be a number"),
        ("DEADLINE_MS", "nan", "deadline_ms is 'nan'; it must be a finite number"),
        ("SAVE_SECONDS", "inf", "save_seconds is 'inf'; it must be a finite number"),
        ("CONTRACT", "p95=1.1", "unknown quantile 'p95'; known: p99, p999"),
        ("CONTRACT", "p99=0.5", "p99=0.5; it must be a number of at least 1"),
        ("CONTRACT", "p99=much", "'much' is not a number"),
        ("POLICY", "shortest", "unknown policy 'shortest'; known: alise"),
        ("POLICY", "ssjf-aged:x", "'x' is not a finite number of at least 0"),
        ("POLICY", "sjf", "policy 'sjf' knows true lengths, as no server does; take ssjf"),
        ("POLICY", "hrrn", "policy 'hrrn' changes while requests wait, which no priority of vLLM"),
        ("POLICY", "due", "--scheduler-cls ssjf.harness.scheduler.PolicyScheduler instead"),
        ("POLICY", "ssjf-bounded", "policy 'ssjf-bounded' changes while requests wait"),
        ("POLICY", "headroom:1,1,9,5,5", "policy headroom: 5 tokens must be above 0 and below 5"),
        ("POLICY", "trail", "policy 'trail' preempts running requests"),
        ("PROXY", "", "proxy is ''; it must have at least 1 character"),
        ("MAX_BATCH", "8", "unknown variable 'SSJF_SERVE_MAX_BATCH'"),
    ],
)
def test_an_option_that_is_none_of_those_allowed_is_one_sentence(name, text, says):
    with pytest.raises(InputError) as error:
        ServeOptions.from_environment({f"SSJF_SERVE_{name}": text})
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_state_without_learning_is_refused():
    with pytest.raises(InputError, match="leave one out"):
        ServeOptions.from_environment({"SSJF_SERVE_LEARN": "none", "SSJF_SERVE_STATE": "a"})


def test_a_contract_is_the_default_and_a_policy_stands_instead():
    assert ServeOptions().contract == str(Contract()) == "p99=1.05,p999=1.1"
    both = {"SSJF_SERVE_POLICY": "ssjf", "SSJF_SERVE_CONTRACT": "p99=1.2"}
    with pytest.raises(InputError, match="a contract chooses the policy; leave contract or policy"):
        ServeOptions.from_environment(both)
