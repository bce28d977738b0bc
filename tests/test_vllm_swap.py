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


class Connected(Deployment):
    """Swaps with one of the tests' connectors."""

    connector: str

    def engine_arguments(self, model):
        found = super().engine_arguments(model)
        module = {"kv_connector_module_path": "swap_connectors"}
        found["kv_transfer_config"] |= {"kv_connector": self.connector} | module
        return found


@pytest.fixture(scope="module")
def connected():
    """An engine with one of the tests' connectors."""

    def engine(connector, bits):
        return Engine(Connected(**SMALL.as_json() | {"swap_bits": bits}, connector=connector))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        yield engine


@pytest.fixture(scope="module")
def engine(connected):
    """An engine that swaps in 8 bits and checks every copy."""
    with connected("CheckedSwap", 8) as live:
        yield live


SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def runs(engine, connected):
    """The same requests with too little KV memory: swapped in 8 and in 16 bits, or recomputed
    because the host is full."""
    found = {8: served(engine)}
    with connected("CheckedSwap", 16) as live:
        found[16] = served(live)
    with Engine(SMALL.replace(swap_bits=8, host_tokens=1)) as live:
        found[0] = served(live)
    return found


def served(live):
    return [live.serve(workload(seed), "fcfs", SHORT, clock="steps") for seed in SEEDS]


@vllm_engine.needed
@pytest.mark.slow
def test_swapped_requests_are_not_computed_again(runs):
    """Prefilled once: the prompts, and the one token each time that vLLM must compute itself."""
    for i, prompts in enumerate(workload(seed).prompt_tokens.sum() for seed in SEEDS):
        for bits in (16, 8):
            measured, steps, more = runs[bits][i]
            preemptions = measured.preemptions.sum()
            assert preemptions > 5 and more["swap_out"] == more["swap_back"] == preemptions
            assert prompts <= steps["prefill_tokens"].sum() <= prompts + 2 * preemptions
            assert more["swap_left"] == more["swap_blocks"] == 0
        measured, steps, more = runs[0][i]  # a full host
        assert measured.preemptions.sum() > 5 and more["swap_out"] <= 1  # of one token
        assert np.isfinite(measured.finished_at).all()
        assert steps["prefill_tokens"].sum() > prompts * 1.3


def unchanged(runs, bits):
    """The share of preempted requests whose greedy answer is as if it was recomputed."""
    same = []
    for seed, swapped, recomputed in zip(SEEDS, runs[bits], runs[0], strict=True):
        ends = np.cumsum(workload(seed).output_tokens)[:-1]
        pairs = zip(*(np.split(each[2]["tokens"], ends) for each in (swapped, recomputed)),
                    strict=True)  # fmt: skip
        equal = np.array([np.array_equal(*pair) for pair in pairs])
        same.extend(equal[swapped[0].preemptions > 0])
    return np.mean(same)


@vllm_engine.needed
@pytest.mark.slow
def test_what_comes_back_is_what_was_computed(runs):
    """Of 29 preempted requests, the answers of all were unchanged in 16 bits and of 25 in 8 bits.

    With the blocks of 16 bits in a wrong order 22 were. Sums in another order may flip a near tie;
    what the rounding may change is checked copy by copy (``CheckedSwap``).
    """
    assert unchanged(runs, 16) >= 0.9 and unchanged(runs, 8) >= 0.7


@vllm_engine.needed
@pytest.mark.slow
def test_a_thousand_preemptions_leak_no_block_and_no_copy(engine):
    rng = np.random.default_rng(0)
    n, preemptions = 300, 0
    server = Server(slots=8, kv_tokens=BLOCK * 8, block_tokens=BLOCK, token_budget=256)
    for seed in range(40):
        requests = Requests(np.zeros(n), np.full(n, BLOCK - 1), rng.integers(3, 6, n))
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
def test_a_copy_that_fails_in_the_middle_leaves_no_request_stuck(connected):
    """Out of host memory at the second layer, or lost on the way back: computed again."""
    requests = workload(2, 40)
    with connected("LosingSwap", 8) as live:
        done, _, more = live.serve(requests, "fcfs", SHORT, clock="steps")
    assert np.isfinite(done.finished_at).all()
    assert len(more["tokens"]) == requests.output_tokens.sum()
    assert 0 < more["swap_back"] < done.preemptions.sum()
    assert more["swap_left"] == more["swap_blocks"] == 0


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
    [("swap_bits", 4, "swap_bits is 4; it must be 0, 8 or 16"),
     ("kv_dtype", "int3", "kv_dtype is 'int3'; it must be 'auto' or 'fp8'")],
)  # fmt: skip
def test_an_unknown_width_is_one_sentence(field, value, sentence):
    with pytest.raises(InputError, match=sentence):
        SMALL.replace(**{field: value})
