"""Keys: the order of the package's own policies, and how far a request may be overtaken."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssjf.errors import InputError
from ssjf.scheduler import Queue, policy
from ssjf.serving.options import ServeOptions
from ssjf.serving.priority import Keys

TIMES = st.floats(0, 1e8)  # seconds that a machine is up: three years
LENGTHS = st.floats(1e-6, 1e7)
BOUNDS = st.floats(0.01, 86_400)
LONGEST = st.integers(1, 10**6)


def keys(**options):
    return Keys(ServeOptions(**options))


@given(TIMES, st.floats(0, 1e5), LENGTHS, LENGTHS, BOUNDS, LONGEST)
def test_none_is_overtaken_by_what_arrives_later_than_the_bound(
    first, gap, long, short, bound, longest
):
    """To the millisecond; vLLM breaks ties by arrival."""
    found = keys(overtake_seconds=bound, longest_tokens=longest)
    later = first + bound + 0.001 + gap
    assert found.priority(first, long) <= found.priority(later, short)


@given(TIMES, BOUNDS, LONGEST)
def test_the_bound_is_reached(first, bound, longest):
    """What arrives a hundredth earlier than it, and is as short as can be, does overtake."""
    found = keys(overtake_seconds=bound, longest_tokens=longest)
    gap = bound * (1 - 1 / longest) - 0.003
    if gap > 0:
        assert found.priority(first, 1e7) > found.priority(first + gap, 1)


@given(TIMES, LENGTHS, LENGTHS, BOUNDS, LONGEST)
def test_of_two_that_arrive_at_once_the_shorter_never_goes_later(at, one, other, bound, longest):
    found = keys(overtake_seconds=bound, longest_tokens=longest)
    short, long = sorted([one, other])
    assert found.priority(at, short) <= found.priority(at, long)


@pytest.mark.parametrize("bound, name", [(None, "ssjf"), (0, "fcfs"), (30.0, "ssjf-aged:34")])
def test_the_order_is_that_of_the_policy_that_the_simulator_runs(bound, name):
    rng = np.random.default_rng(0)
    arrived, predicted = np.sort(rng.uniform(0, 60, 400)), rng.integers(1, 1020, 400) * 1.0
    found = keys(overtake_seconds=bound, longest_tokens=1020)
    none = np.zeros(400, np.int64)
    scores = policy(name).scores(Queue(arrived, none, predicted, none), 60.0)
    priorities = [found.priority(a, p) for a, p in zip(arrived, predicted, strict=True)]
    order, expected = np.lexsort((arrived, priorities)), np.lexsort((arrived, scores))
    # A millisecond, of 34 tokens a second, is all that rounding may change.
    assert np.abs(scores[order] - scores[expected]).max() <= (0.034 if bound else 0.001)
    assert found.policy.name == name.partition(":")[0]


@given(TIMES, LENGTHS, st.one_of(st.none(), st.just(0), BOUNDS), LONGEST)
def test_a_key_is_a_whole_number_that_json_readers_keep(at, length, bound, longest):
    found = keys(overtake_seconds=bound, longest_tokens=longest).priority(at, length)
    assert type(found) is int and 0 <= found < 2**53


# Options


VALID = {
    "client_priority": st.sampled_from(["respect", "override"]),
    "client_limit": st.sampled_from(["respect", "ignore"]),
    "learn": st.just("refit"),
    "log_level": st.sampled_from(["debug", "warning", "error"]),
    "deadline_ms": st.none() | st.floats(0.1, 60_000),
    "overtake_seconds": st.none() | st.just(0) | BOUNDS,
    "longest_tokens": LONGEST,
    "save_seconds": st.floats(0.1, 86_400),
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
        ("LONGEST_TOKENS", "1.5", "longest_tokens is '1.5'; it must be a whole number"),
        ("LONGEST_TOKENS", "0", "longest_tokens is '0'; it must be at least 1"),
        ("OVERTAKE_SECONDS", "-1", "it must be at least 0"),
        ("OVERTAKE_SECONDS", "0.001", "it must be none, 0 or a number from 0.01 to 86400"),
        ("OVERTAKE_SECONDS", "None", "overtake_seconds is 'None'; it must be a number"),
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
