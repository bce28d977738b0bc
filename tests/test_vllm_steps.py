"""The simulator against vLLM itself: the same requests, the same steps, one by one."""

import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import vllm_engine
from ssjf import Requests, Server, simulate
from ssjf.errors import InputError
from ssjf.harness.engine import Engine
from ssjf.simulator.profile import Profile

pytestmark = [vllm_engine.needed]

BLOCK, BLOCKS = vllm_engine.BLOCK, 64
SMALL = vllm_engine.SMALL.replace(token_budget=256, context_tokens=512)
ONE_A_STEP = Profile("one a step", 1.0)
STAMPS = ("scheduled_at", "first_token_at", "finished_at", "preemptions")
POLICIES = ("fcfs", "sjf", "ssjf", "ssjf-aged:2", "hrrn", "ssjf-bounded:0.5",
            "headstart:4,20", "due:3,8,30,1", "headroom:2,0.5,40,3,50,1,3",
            "victim_policy:longest_kept", "sglang-hrrn")  # fmt: skip
MOVING = ("hrrn", "due:3,8,30,1", "victim_policy:longest_kept", "sglang-hrrn")


def places():
    """Where an engine's process finds the policies of this folder, too."""
    others = os.environ.get("PYTHONPATH", "")
    return f"{Path(__file__).parent}{os.pathsep}{others}".strip(os.pathsep)


@pytest.fixture(scope="module")
def engine():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", places())
        with Engine(SMALL) as live:
            yield live


def drawn(seed, between_steps):
    """A workload, its predictions (no two equal), a server; arrivals at whole steps, or not.

    Scores that move with time are given no exact ties, as of requests that have not waited at
    all: which goes first then hangs on the last bit of a float.
    """
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 14))
    span, parts = int(rng.integers(1, 40)), 64 if between_steps else 1  # exact in binary
    arrived = np.sort(rng.integers(0, span * parts, n)) / parts
    prompt, output = rng.integers(1, 80, n), rng.integers(1, 32, n)
    chunked = bool(rng.random() < 0.7)
    slots = int(rng.integers(1, 9))
    budget = int(rng.integers(slots if chunked else 120, 200))
    needed = -(-int((prompt + output - 1).max()) // BLOCK)
    blocks = needed + int(rng.integers(0, 4)) if rng.random() < 0.7 else BLOCKS
    server = Server(slots=slots, kv_tokens=BLOCK * blocks, block_tokens=BLOCK, token_budget=budget,
                    chunked_prefill=chunked, watermark=float(rng.choice([0, 0, 0.1])))  # fmt: skip
    return Requests(arrived, prompt, output), rng.uniform(1, 60, n), server


@pytest.mark.slow
@pytest.mark.parametrize("policy_name", POLICIES)
def test_every_first_token_and_finish_is_at_the_step_of_vllm(engine, policy_name):
    """Chunked prefill or not, short KV memory or not: 40 random configurations a policy."""
    from ssjf.scheduler import policy

    preemptions = 0
    for seed in range(40):
        between = policy_name in MOVING or bool(seed % 2)
        requests, predicted, server = drawn([POLICIES.index(policy_name), seed], between)
        ours = simulate(requests, policy(policy_name), ONE_A_STEP, server, predicted)
        real, steps, _ = engine.serve(requests, policy_name, server, predicted, clock="steps")
        for name in STAMPS:
            assert getattr(ours, name).tolist() == getattr(real, name).tolist(), (seed, name)
        assert real.counters["steps"] <= ours.counters["steps"]  # ours counts empty ones too
        assert steps["kv_blocks"].max() <= server.blocks
        assert steps["running"].max() <= server.slots
        preemptions += real.preemptions.sum()
    assert preemptions > 4  # the memory really was short


def test_the_rule_of_vllm_033_is_that_of_its_source(monkeypatch):
    """Where the rules of 0.32 and 0.33 differ: a request preempts itself, and others are behind."""
    from ssjf.scheduler import policy

    monkeypatch.setenv("PYTHONPATH", places())
    found = 0
    with Engine(SMALL) as live:
        for seed in range(1000):
            requests, predicted, server = drawn([33, seed], bool(seed % 2))
            old, new = (simulate(requests, policy("ssjf"), ONE_A_STEP, replace(server, vllm=each),
                                 predicted) for each in ("0.32", "0.33"))  # fmt: skip
            if (old.finished_at == new.finished_at).all():
                continue
            real, *_ = live.serve(requests, "vllm_033:shortest", server, predicted, clock="steps")
            for name in STAMPS:
                assert getattr(new, name).tolist() == getattr(real, name).tolist(), (seed, name)
            found += 1
            if found == 12:
                return
    raise AssertionError("the rules hardly ever differ")


def test_sjf_serves_the_shortest_first_in_a_full_slot(engine):
    """One slot, all there at once: the mean JCT is that of the sorted lengths, by hand."""
    output = np.array([30, 10, 20, 5])
    requests = Requests(np.zeros(4), np.full(4, 8), output)
    server = Server(slots=1, kv_tokens=BLOCK * BLOCKS, block_tokens=BLOCK, token_budget=256)
    for name, order in (("sjf", np.sort(output)), ("fcfs", output)):
        done, *_ = engine.serve(requests, name, server, clock="steps")
        assert sorted(done.finished_at) == np.cumsum(order).tolist()


def test_a_run_in_seconds_keeps_the_order_of_time_and_the_same_steps(engine):
    requests, predicted, server = drawn(7, True)
    real, steps, _ = engine.serve(requests.arriving(requests.arrived_at / 1000), "ssjf", server,
                               predicted)  # fmt: skip
    stamps = [real.requests.arrived_at, *(getattr(real, name) for name in STAMPS[:3])]
    assert (np.diff(stamps, axis=0) >= 0).all()
    assert (np.diff(steps["ended_at"]) > 0).all()
    assert (steps["started_at"] <= steps["ended_at"]).all()
    # every token was computed once, but for what preemptions recomputed
    assert steps["sequences"].sum() >= requests.output_tokens.sum()
    assert steps["prefill_tokens"].sum() >= requests.prompt_tokens.sum()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"slots": 17}, "slots is 17; deployment small has 16"),
        ({"kv_tokens": BLOCK * 65}, "kv_tokens is 2080; deployment small has 2048"),
        ({"token_budget": 300}, "token_budget is 300; deployment small has 256"),
        ({"block_tokens": 16}, "block_tokens is 16; deployment small has 32"),
    ],
)
def test_what_the_deployment_cannot_do_is_one_sentence(engine, change, sentence):
    requests = Requests(np.zeros(1), np.ones(1), np.ones(1))
    options = {"slots": 4, "kv_tokens": 2048, "block_tokens": BLOCK, "token_budget": 256}
    with pytest.raises(InputError, match=sentence):
        engine.serve(requests, "fcfs", Server(**options | change))


@pytest.mark.slow
def test_a_killed_engine_is_one_sentence_and_a_new_one_ends_with_its_owner():
    """The worker reads to the end of its input: no engine outlives a killed harness."""
    owner = vllm_engine.owner(SMALL)
    first = int(owner.stdout.readline())
    os.kill(first, signal.SIGKILL)
    assert re.search(r"deployment small died: signal 9.*are kept", owner.stdout.readline())
    pid, finished_at = owner.stdout.readline().split()
    assert int(pid) != first and float(finished_at) > 400
    owner.kill()
    owner.wait()
    for _ in range(6000):
        if not os.path.exists(f"/proc/{pid}") or vllm_engine.is_zombie(pid):
            return
        time.sleep(0.1)
    raise AssertionError("the engine still runs")
