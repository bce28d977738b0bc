"""Swapping preempted requests on vLLM: nothing leaks or sticks, little is lost to rounding."""

from pathlib import Path

import numpy as np
import pytest
import torch

import vllm_engine
from ssjf import Requests, Server
from ssjf.errors import InputError
from ssjf.hardware import instruction_sets
from ssjf.harness.deployment import Deployment
from ssjf.harness.engine import Engine
from ssjf.harness.quantise import halves, joined, quantise, restore

pytestmark = pytest.mark.xdist_group("vllm-swap")

BLOCK, SMALL = vllm_engine.BLOCK, vllm_engine.SMALL
SHORT = Server(slots=8, kv_tokens=BLOCK * 12, block_tokens=BLOCK, token_budget=128)


@pytest.mark.parametrize("keys_first", [True, False])
def test_keys_and_values_are_taken_apart_and_put_together(keys_first):
    blocks = torch.randn(3, 2, 4, 10)
    parts = halves(blocks, keys_first)
    assert parts.shape == (3, 2, 2, 20)
    assert torch.equal(joined(parts, keys_first, 4), blocks)
    if not keys_first:  # the first half of every token's row is its key
        assert torch.equal(parts[:, :, 0].reshape(3, 2, 4, 5), blocks[..., :5])


@pytest.mark.parametrize("keys_first", [True, False])
def test_rounding_is_off_by_at_most_half_a_step_of_its_part(keys_first):
    """A large value in one block, head or half costs no other."""
    blocks = torch.randn(3, 2, 4, 10)
    blocks[1, 0] *= 1000
    kept = quantise(blocks, keys_first)
    assert kept.values.dtype == torch.int8
    off = (halves(restore(kept, keys_first, blocks), keys_first) - halves(blocks, keys_first)).abs()
    assert (off <= kept.scales * (0.5 + 1e-4)).all()
    assert kept.scales[0].max() < 0.05 and kept.scales[1, 0].max() > 1


def test_nothing_but_zeros_stays_so():
    blocks = torch.zeros(1, 1, 4, 8)
    assert torch.equal(restore(quantise(blocks, True), True, blocks), blocks)


def workload(seed, n=20):
    rng = np.random.default_rng(seed)
    arrived = np.sort(rng.integers(0, 30, n)).astype(float)
    return Requests(arrived, rng.integers(2, 80, n), rng.integers(20, 90, n))


@pytest.fixture(scope="module")
def engine():
    """An engine that swaps in 8 bits."""
    with Engine(SMALL.replace(swap_bits=8)) as live:
        yield live


@pytest.fixture(scope="module")
def runs(engine):
    """The same requests with too little KV memory: computed again, kept as they are, in 8 bits."""
    found = {8: engine.serve(workload(1), "fcfs", SHORT, clock="steps")}
    for bits in (0, 16):
        with Engine(SMALL.replace(swap_bits=bits)) as live:
            found[bits] = live.serve(workload(1), "fcfs", SHORT, clock="steps")
    return found


@vllm_engine.needed
@pytest.mark.slow
def test_swapped_requests_are_not_computed_again(runs):
    """Prefilled once: the prompts, and the one token each time that vLLM must compute itself."""
    requests = workload(1)
    for bits in (16, 8):
        measured, steps, more = runs[bits]
        preemptions = measured.preemptions.sum()
        assert preemptions > 5 and more["swap_out"] == more["swap_back"] == preemptions
        prompts = requests.prompt_tokens.sum()
        assert prompts <= steps["prefill_tokens"].sum() <= prompts + 2 * preemptions
        assert more["swap_left"] == more["swap_blocks"] == 0
    assert runs[0][1]["prefill_tokens"].sum() > requests.prompt_tokens.sum() * 1.3


@vllm_engine.needed
@pytest.mark.slow
def test_what_comes_back_is_what_was_computed(runs):
    """Greedy answers after 16-bit copies are those computed again; 8 bits change few of them.

    Sums in another order may flip a near tie, after which an answer goes on differently.
    """
    lengths = workload(1).output_tokens
    again, exact, rounded = (np.split(runs[bits][2]["tokens"], np.cumsum(lengths)[:-1])
                             for bits in (0, 16, 8))  # fmt: skip
    same = [np.mean([np.array_equal(*pair) for pair in zip(again, kept, strict=True)])
            for kept in (exact, rounded)]  # fmt: skip
    assert same[0] >= 0.8 and same[1] >= 0.5


@vllm_engine.needed
@pytest.mark.slow
def test_a_thousand_preemptions_leak_no_block_and_no_copy(engine):
    rng = np.random.default_rng(0)
    n, preemptions = 300, 0
    server = Server(slots=8, kv_tokens=BLOCK * 8, block_tokens=BLOCK, token_budget=256)
    for seed in range(40):
        requests = Requests(np.zeros(n), np.full(n, BLOCK - 1), rng.integers(3, 12, n))
        done, _, more = engine.serve(requests, "fcfs", server, clock="steps", seed=seed)
        assert np.isfinite(done.finished_at).all()
        assert more["swap_left"] == more["swap_blocks"] == 0
        assert len(more["tokens"]) == requests.output_tokens.sum()
        preemptions += done.preemptions.sum()
        if preemptions >= 1000:
            return
    raise AssertionError(f"only {preemptions} preemptions")


@vllm_engine.needed
@pytest.mark.slow
@pytest.mark.parametrize("policy_name", ["alise:50", "ssrpt"])
def test_a_preemptive_order_takes_slots_from_who_runs(engine, policy_name):
    """Enough memory, one slot, a long request first: short ones do not wait for its end."""
    requests = Requests([0.0, 3.0, 4.0], [8, 8, 8], [300, 10, 10])
    server = Server(slots=1, kv_tokens=BLOCK * 60, block_tokens=BLOCK, token_budget=256)
    predicted = requests.output_tokens.astype(float)
    done, _, more = engine.serve(requests, policy_name, server, predicted, clock="steps")
    assert done.finished_at[1] < done.finished_at[2] < done.finished_at[0]
    assert done.preemptions[0] >= 1 and more["swap_back"] >= 1 and more["swap_blocks"] == 0


@vllm_engine.needed
@pytest.mark.slow
def test_a_copy_that_fails_in_the_middle_leaves_no_request_stuck(monkeypatch):
    """Out of host memory at the second layer, or lost on the way back: computed again."""
    here = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", str(here))

    class Losing(Deployment):
        def engine_arguments(self, model):
            found = super().engine_arguments(model)
            module = {"kv_connector_module_path": "losing_connector"}
            found["kv_transfer_config"] |= {"kv_connector": "LosingSwap"} | module
            return found

    requests = workload(2, 40)
    with Engine(Losing(**SMALL.as_json() | {"swap_bits": 8})) as live:
        done, _, more = live.serve(requests, "fcfs", SHORT, clock="steps")
    assert np.isfinite(done.finished_at).all()
    assert len(more["tokens"]) == requests.output_tokens.sum()
    assert 0 < more["swap_back"] < done.preemptions.sum()
    assert more["swap_left"] == more["swap_blocks"] == 0


@vllm_engine.needed
@pytest.mark.slow
def test_a_full_host_computes_again():
    with Engine(SMALL.replace(swap_bits=8, host_tokens=1)) as live:
        done, _, more = live.serve(workload(1), "fcfs", SHORT, clock="steps")
    assert done.preemptions.sum() > 0 and more["swap_out"] == 0
    assert np.isfinite(done.finished_at).all()


@vllm_engine.needed
@pytest.mark.skipif(
    not {"avx512f", "amx_bf16"} & set(instruction_sets()),
    reason="vLLM's FP8 KV cache on a CPU needs x86 with AVX-512 or AMX, which this one lacks",
)
@pytest.mark.slow
def test_fp8_kv_is_taken_by_the_engine_and_says_as_much():
    with Engine(SMALL.replace(kv_dtype="fp8")) as live:
        requests = workload(3)
        _, _, more = live.serve(requests, "fcfs", SHORT, clock="steps")
    assert len(more["tokens"]) == requests.output_tokens.sum()


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [("swap_bits", 4, "unknown swap_bits 4; known: 0, 16, 8"),
     ("kv_dtype", "int3", "unknown kv_dtype 'int3'; known: auto, fp8")],
)  # fmt: skip
def test_an_unknown_width_is_one_sentence(field, value, sentence):
    with pytest.raises(InputError, match=sentence):
        SMALL.replace(**{field: value})
