"""ALISE's experiments: the highest rate under a bound, the option of the command line, claims."""

import numpy as np
import pytest

from commands import changed, refused, ssjf, trace
from ssjf import Requests, Server
from ssjf.errors import InputError
from ssjf.experiments import grid
from ssjf.experiments.runs import alise
from ssjf.simulator.profile import Profile
from ssjf.simulator.server import Memory, memory_of

HERE = Profile("plain", 0.01), Server(slots=4), Memory()
SPEC = changed(grid.experiment("alise-limit").specs()[0], keeps_up=False)  # FCFS


def load(n=400, **values):
    rng = np.random.default_rng(0)
    gaps = np.cumsum(rng.exponential(1.0, n))
    requests = Requests(gaps, np.ones(n), rng.integers(1, 60, n))
    return alise.Load(changed(SPEC, **values), *HERE, requests)


def latency(done):
    return np.mean((done.finished_at - done.requests.arrived_at) / done.requests.output_tokens)


@pytest.mark.parametrize("bound", [0.012, 0.02, 0.1])
def test_the_highest_rate_keeps_the_bound_and_a_little_more_breaks_it(bound):
    rate = alise.highest_rate(load(), bound, start=5.0)
    assert latency(load().served(rate)) <= bound < latency(load().served(1.021 * rate))


def test_a_wider_bound_allows_no_lower_rate_and_where_one_starts_changes_little():
    rates = [alise.highest_rate(load(), b, 5.0) for b in (0.011, 0.015, 0.03, 0.1)]
    assert rates == sorted(rates)
    for start in (0.5, 50.0):
        assert alise.highest_rate(load(), 0.015, start) == pytest.approx(rates[1], rel=0.03)


def test_a_bound_below_what_one_request_takes_alone_is_refused():
    with pytest.raises(InputError, match=r"a request alone takes longer than 0\.001 s a token"):
        alise.highest_rate(load(), 0.001, 5.0)


def test_a_server_that_must_keep_up_is_given_no_more_than_it_can_serve():
    """SJF keeps a low mean in an overload that ends; keeping up allows what a server can do."""
    loads = [load(800, policy="sjf", keeps_up=keeps) for keeps in (False, True)]
    alone, kept = (alise.highest_rate(each, 1.0, 5.0) for each in loads)
    capacity = HERE[1].slots / (0.01 * loads[0].requests.output_tokens.mean())
    assert kept <= 1.15 * capacity < alone


def test_the_highest_rate_of_shorter_jobs_first_is_no_lower_than_that_of_fcfs():
    """Short answers weigh most in a mean over tokens, and SJF serves them first."""
    loads = [load(800, policy=name) for name in ("fcfs", "sjf")]
    fcfs, sjf = (alise.highest_rate(each, 0.05, 5.0) for each in loads)
    assert sjf > fcfs


def test_the_memory_option_in_full():
    found = memory_of("ewt, host_tokens=1000,quantise=8,out_bytes_per_second=2e9,spare_share=0.1")
    assert found == Memory(on_preemption="ewt", host_tokens=1000, quantise=8,
                           out_bytes_per_second=2e9, spare_share=0.1)  # fmt: skip
    assert memory_of("recompute") == Memory()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("swop", "on_preemption is 'swop'; it must be 'recompute', 'swap', 'ewt' or 'defer'"),
        ("swap,host=1", "unknown key 'host'; known: ahead_seconds"),
        ("swap,host_tokens=many", "host_tokens is 'many'; it must be a whole number"),
        ("swap,quantise=5", "quantise is 5; it must be None, 8 or 4"),
        ("swap,host_tokens=1000,out_bytes_per_second=0", "it must be above 0"),
        ("swap,host_tokens=1", "host"),
    ],
)
def test_a_wrong_memory_option_is_one_sentence(tmp_path, text, sentence):
    file = trace(tmp_path / "t.csv", rows=20)
    assert sentence in refused("simulate", file, "--policies", "alise", "--memory", text)


def test_simulate_takes_a_preemptive_policy_and_a_memory(tmp_path):
    lengths = [300, 5, 5, 5] * 50
    file = trace(tmp_path / "t.csv", rows=200, gap=0.3, output=lengths)
    done = ssjf("simulate", file, "--policies", "alise,srpt", "--slots", "2", "--memory",
                "ewt,host_tokens=100000,bytes_per_token=1e5,out_bytes_per_second=1e10,"
                "in_bytes_per_second=1e10,quantise=8")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "alise" in done.output and "srpt" in done.output


def test_negative_ageing_is_refused(tmp_path):
    file = trace(tmp_path / "t.csv", rows=20)
    assert "policy 'alise:-1'" in refused("simulate", file, "--policies", "alise:-1")
