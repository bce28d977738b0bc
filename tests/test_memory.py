"""What a model shape costs on a device is arithmetic; and bad input is one sentence."""

import math
from dataclasses import replace

import numpy as np
import pytest

from ssjf.errors import InputError
from ssjf.request import Requests
from ssjf.scheduler import policy
from ssjf.scheduler.alise import Remaining, TimeModel, alise
from ssjf.simulator.profile import Profile, profile
from ssjf.simulator.server import Memory, Server
from ssjf.simulator.shapes import DEVICES, SHAPES, deployed, kv_tokens, pcie
from ssjf.simulator.simulate import simulate

PARAMETERS = {  # as the published checkpoints have them
    "opt-2.7b": 2_651_596_800,
    "opt-6.7b": 6_658_473_984,
    "opt-13b": 12_853_473_280,
    "llama-7b": 6_738_415_616,
    "llama-13b": 13_015_864_320,
    "pythia-12b": 11_846_072_320,
}


def test_the_sizes_of_layers_give_the_parameters_of_the_checkpoints():
    assert {name: each.parameters for name, each in SHAPES.items()} == PARAMETERS


def test_kv_bytes_by_hand():
    assert SHAPES["opt-13b"].kv_bytes_per_token == 2 * 2 * 40 * 5120  # k and v, 2 bytes
    assert replace(SHAPES["llama-7b"], kv_heads=8).kv_bytes_per_token == 2 * 2 * 32 * 1024


def test_links_by_the_specification():
    assert [round(pcie(g) / 1e9, 2) for g in (3, 4, 5)] == [15.75, 31.51, 63.02]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("on", DEVICES)
def test_every_shape_is_deployed_within_its_device(name, on):
    model, server, memory = deployed(name, on)
    made, where = SHAPES[name], DEVICES[on]
    used = made.weight_bytes + server.kv_tokens * made.kv_bytes_per_token
    assert used <= 0.9 * where.memory_bytes < used + made.kv_bytes_per_token
    read = model.step_seconds + server.kv_tokens * model.per_context_token_seconds
    assert read * where.memory_bytes_per_second == pytest.approx(used)
    assert memory.host_tokens * made.kv_bytes_per_token <= 64 * 2**30
    assert server.kv_tokens >= made.context_tokens


def test_quantised_tokens_are_half_and_a_quarter_on_the_link():
    _, _, memory = deployed("opt-13b", "v100-32gb")
    plain = replace(memory, quantise_seconds_per_token=0.0)
    times = [replace(plain, quantise=bits).token_picoseconds()[0] for bits in (None, 8, 4)]
    assert times == [pytest.approx(819_200 / pcie(3) * 1e12 / k) for k in (1, 2, 4)]
    slower = replace(memory, quantise=8).token_picoseconds()[0]
    assert slower == pytest.approx(times[1] + 1.5 * 819_200 / 900e9 * 1e12)
    assert memory.token_picoseconds()[0] == pytest.approx(times[0])


REQUESTS = Requests([0.0, 1.0], [100, 20], [50, 5])
PAPER = profile("ssjf-paper")
LINK = {"host_tokens": 1_000, "bytes_per_token": 1.0}


def serve(memory, chosen="alise", server=None, requests=REQUESTS, model=PAPER, predicted=True):
    lengths = requests.output_tokens.astype(float) if predicted else None
    return simulate(requests, policy(chosen), model, server, lengths, memory=memory)


REFUSED = [
    (lambda: Memory("discard"), "on_preemption is 'discard'; it must be 'recompute', 'swap'"),
    (lambda: Memory(reserve="all"), "reserve is 'all'; it must be 'none', 'maximum' or 'true'"),
    (lambda: Memory("swap", quantise=3), "quantise is 3; it must be None, 8 or 4"),
    (lambda: Memory("swap", host_tokens=-1), "host_tokens is -1; it must be at least 0"),
    (lambda: Memory("swap", out_bytes_per_second=0), "out_bytes_per_second is 0; it must be above"),
    (lambda: Memory("swap", in_bytes_per_second=-2.0), "in_bytes_per_second is -2.0; it must be"),
    (lambda: Memory("swap", in_bytes_per_second=math.nan), "in_bytes_per_second is nan"),
    (lambda: Memory("swap", latency_seconds=-1), "latency_seconds is -1; it must be at least 0"),
    (lambda: Memory("ewt", spare_share=1), "spare_share is 1; it must be below 1"),
    (lambda: Memory("ewt", ahead_seconds=math.inf), "ahead_seconds is inf; it must be below 10000"),
    (lambda: Memory(reserve="maximum"), "reserve 'maximum' needs maximum_tokens"),
    (
        lambda: serve(Memory("swap", host_tokens=100)),
        "the host memory holds 100 KV tokens .* request 1 may need 160; give host_tokens of at "
        "least 160, or on_preemption 'recompute'",
    ),
    (
        lambda: serve(Memory("ewt", host_tokens=70, quantise=8)),
        "holds 140 KV tokens .* at least 80, or",
    ),
    (
        lambda: serve(Memory("swap", out_bytes_per_second=1e-6, **LINK)),
        r"a token takes 1e\+06 s on the link \(out_bytes_per_second\)",
    ),
    (
        lambda: serve(Memory("swap", in_bytes_per_second=1e-3, **LINK)),
        r"one copy could take 1.54e\+05 s; the time counter allows 72057 s",
    ),
    (
        lambda: serve(Memory(reserve="maximum", maximum_tokens=100)),
        "request 1 needs 154 KV tokens and maximum_tokens, what is reserved for each, is 100",
    ),
    (
        lambda: serve(
            Memory(reserve="maximum", maximum_tokens=999), server=Server(kv_tokens=512)
        ),
        "maximum_tokens is 999 and the KV memory has 512 tokens: no request could be admitted",
    ),
    (lambda: serve(None, predicted=False), "policy alise needs predicted lengths and none"),
    (
        lambda: serve(Memory("ewt", **LINK), "fcfs", predicted=False),
        "predicted lengths are turned into times: they must be finite tokens above 0",
    ),
    (
        lambda: serve(Memory("swap", **LINK), requests=REQUESTS.arriving(np.array([0.0, 1e7]))),
        r"the last request arrives after 1e\+07 s, which overflows the time counter",
    ),
    (
        lambda: serve(Memory(), model=Profile("slow", 9e3), requests=Requests(
            np.zeros(600), np.ones(600), np.ones(600, int)), server=Server(1)),
        "the run passes 4611686 s, the end of the time counter",
    ),
    (lambda: policy("alise:-1"), "'-1' is not a finite number of at least 0"),
    (lambda: policy("alise:0"), "promotion_seconds is 0.0; it must be above 0"),
    (lambda: alise(-5.0), "promotion_seconds is -5.0; it must be above 0"),
    (lambda: alise(boundaries=[2.0, 1.0]), r"boundaries are \(2.0, 1.0\); they must be finite"),
    (lambda: alise(boundaries=[]), "promotion_seconds needs boundaries"),
    (lambda: Remaining(boundaries=(math.inf,)), "boundaries are"),
    (lambda: TimeModel(0.0, -1.0, 1.0), "context_token_seconds is -1.0; it must be at least 0"),
    (lambda: deployed("opt-175b", "h200"), "unknown model shape 'opt-175b'; known: llama-13b"),
    (lambda: deployed("opt-13b", "b100"), "unknown device 'b100'; known: a100-80gb, h200, v100"),
    (
        lambda: kv_tokens(
            SHAPES["opt-13b"], replace(DEVICES["v100-32gb"], memory_bytes=24 * 2**30)
        ),
        "opt-13b needs 25.7 GB for weights and 1.7 GB for the KV of its longest request, and "
        "v100-32gb has 23.2 GB; use a larger device or a smaller model",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "why"), REFUSED, ids=[str(i) for i in range(len(REFUSED))])
def test_what_cannot_be_is_refused_in_one_sentence(call, why):
    with pytest.raises(InputError, match=why) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_link_too_slow_for_a_whole_run_ends_in_a_sentence():
    """Copies queue up behind one another beyond the end of the clock."""
    requests = Requests(np.zeros(400), np.full(400, 10), np.full(400, 150))
    memory = Memory("swap", host_tokens=2**30, bytes_per_token=400.0,
                    out_bytes_per_second=1.0, in_bytes_per_second=1.0)  # fmt: skip
    with pytest.raises(InputError, match=r"the run passes .* or a faster link"):
        serve(memory, "fcfs", Server(slots=64, kv_tokens=1_024), requests)
