"""The bench measures what it says it measures; how fast is not a test's business."""

import json

import numpy as np

from commands import refused, ssjf
from ssjf.experiments import bench
from ssjf.scheduler import policy
from ssjf.simulator.profile import profile
from ssjf.simulator.server import Server
from ssjf.simulator.simulate import simulate

PROXY_FIELDS = {
    "proxy", "prompt_tokens", "batch", "ms_per_prompt", "prompts_per_second", "rss_mb", "load_ms",
    "first_call_ms",
}  # fmt: skip


def test_every_case_is_measured_once_and_its_figures_agree():
    found = bench.simulator(repeats=1, shrink=100)
    assert len(found) == 14
    assert len({(f["policy"], f["setting"], f["requests"]) for f in found}) == 14
    for each in found:
        assert each["requests_per_second"] * each["ns_per_request"] / 1e9 - 1 < 0.01
        assert each["peak_rss_mb"] > 10


def test_the_workload_has_the_load_it_is_called_by():
    """Near capacity the batch is nearly full; over capacity the queue never empties."""
    model, server = profile("illustrative-gpu"), Server(slots=256)
    running = {}
    for rho in (0.5, 1.3):
        requests = bench.workload(20_000, rho)
        done = simulate(requests, policy("fcfs"), model, server)
        seconds = done.finished_at.max() - requests.arrived_at[0]
        running[rho] = (done.finished_at - done.scheduled_at).sum() / seconds
    assert running[0.5] < 200 < running[1.3] <= 256


def test_a_workload_is_the_same_each_time():
    first, second = (bench.workload(500, 0.8) for _ in range(2))
    assert (first.arrived_at == second.arrived_at).all()
    assert (first.output_tokens == second.output_tokens).all()
    half = bench.workload(500, 0.4)
    assert np.allclose(half.arrived_at, 2 * first.arrived_at)


def test_a_proxy_is_measured_in_every_case(monkeypatch):
    few = bench.proxy(calls=2)
    monkeypatch.setattr(bench, "proxy", lambda name: few)
    result = ssjf("bench", "proxy", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout) == few
    cases = [(each["prompt_tokens"], each["batch"]) for each in few]
    assert cases == [(64, 1), (64, 32), (256, 1), (256, 32)]
    for each in few:
        assert set(each) == PROXY_FIELDS
        assert each["proxy"] == "builtin" and 20 < each["rss_mb"] < 2000
        assert abs(each["ms_per_prompt"] * each["prompts_per_second"] / 1e3 - 1) < 0.01
        assert each["load_ms"] > 0 and each["first_call_ms"] > 0


def test_what_is_no_proxy_is_not_measured(tmp_path):
    assert refused("bench", "proxy", "--proxy", tmp_path).startswith(f"{tmp_path} is no proxy: ")


def test_prompts_have_their_words_and_are_the_same_each_time():
    first, second = (bench.prompts(3, 64, np.random.default_rng(0)) for _ in range(2))
    assert first == second and len(set(first)) == 3
    assert all(len(prompt.split()) == 64 for prompt in first)
    assert len(set(bench.WORDS)) == len(bench.WORDS)
