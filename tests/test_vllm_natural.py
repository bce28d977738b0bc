"""A real model on vLLM: answers that end by themselves, the same whatever the order."""

from contextlib import closing

import numpy as np
import pandas as pd
import pytest
import tokenizers

import real_model
import vllm_engine
from ssjf.errors import InputError
from ssjf.experiments.runs import answers, natural, vllm
from ssjf.experiments.runs.answers import digest, repeated, seed_of
from ssjf.experiments.runs.chats import serving
from ssjf.experiments.specs import spec_of
from ssjf.harness.chat_client import chats
from ssjf.harness.deployment import deployment
from ssjf.harness.engine import Prompts
from ssjf.request import Requests
from ssjf.scheduler import policy
from ssjf.simulator.server import Server
from ssjf.simulator.simulate import simulate

pytestmark = [vllm_engine.needed, pytest.mark.slow]
TEXTS = (
    "What is the capital of France?", "Write a haiku about tea.", "Say hello.",
    "List three colours.", "Is water wet? Answer yes or no.", "Name two rivers.",
)  # fmt: skip
GREEDY = {"most_tokens": 40, "temperature": 0.0, "repetition_penalty": 1.1}
SMALL = Server(slots=8, token_budget=2048, kv_tokens=32768, block_tokens=32)


@pytest.fixture(scope="module")
def live():
    real_model.folder()
    engine = vllm.engine("cpu-smollm2")  # the one that runs use, too
    yield engine
    engine.close()
    vllm.engine.cache_clear()


def answered(live, server=SMALL, arrived=None, decoding=GREEDY, name="fcfs", order=TEXTS, **more):
    """Completions, and the answer to each of ``TEXTS`` by its text."""
    n = len(order)
    arrived = np.zeros(n) if arrived is None else arrived
    requests = Requests(arrived, np.ones(n, int), np.full(n, 40))
    prompts = Prompts(order, decoding, more.pop("seeds", [0] * n))
    done, steps, more = live.serve(requests, name, server, clock="steps", prompts=prompts, **more)
    answers = np.split(more["tokens"], np.cumsum(done.requests.output_tokens)[:-1])
    texts = {text: answer.tolist() for text, answer in zip(order, answers, strict=True)}
    return done, steps, texts, more["ended_by_model"]


@pytest.fixture(scope="module")
def usual(live):
    return answered(live)


def test_the_answer_is_sensible_and_ends_by_itself(live, usual):
    tokenizer = tokenizers.Tokenizer.from_file(str(real_model.folder() / "tokenizer.json"))
    _, _, texts, ended = usual
    assert tokenizer.decode(texts[TEXTS[0]]) == "The capital of France is Paris."
    assert ended[0] and len(texts[TEXTS[0]]) == 8  # with the token that ends it


def test_greedy_answers_do_not_depend_on_batch_order_or_preemption(live, usual):
    one = answered(live, Server(slots=1, token_budget=2048, kv_tokens=32768, block_tokens=32))[2]
    backwards = answered(live, order=TEXTS[::-1])[2]
    short = Server(slots=6, token_budget=2048, kv_tokens=9 * 32, block_tokens=32)
    done, _, preempted, _ = answered(live, short)
    assert done.preemptions.sum() > 0
    assert one == backwards == preempted == usual[2]


def test_sampled_answers_depend_on_their_seed_alone(live):
    sampled = GREEDY | {"temperature": 0.7, "repetition_penalty": 1.0}
    seeds = [seed_of(text, 0) for text in TEXTS]
    first = answered(live, decoding=sampled, seeds=seeds)[2]
    again = answered(live, decoding=sampled, seeds=seeds[::-1], order=TEXTS[::-1])[2]
    other = answered(live, decoding=sampled, seeds=[seed_of(text, 1) for text in TEXTS])[2]
    assert first == again
    assert sum(first[text] == other[text] for text in TEXTS) < len(TEXTS)


@pytest.mark.parametrize("name", ["sjf", "hrrn"])
def test_its_steps_are_those_of_the_simulator(live, name):
    arrived = np.array([0, 0.5, 2, 3.25, 3.5, 7])
    server = Server(slots=2, token_budget=2048, kv_tokens=32768, block_tokens=32)
    guess = np.array([8.0, 40, 9, 20, 30, 12])
    done, steps, _, _ = answered(live, server, arrived, name=name, predicted_tokens=guess)
    ones = Requests(arrived, np.ones(6, int), done.requests.output_tokens)
    told = done.requests.output_tokens if name == "sjf" else guess
    order = "ssjf" if name == "sjf" else name  # vLLM was told the cap, not these lengths
    if name == "sjf":
        told = np.full(6, 40.0)
    twin = simulate(ones, policy(order), natural.STEPS, server, told)
    for stamp in natural.STAMPS:
        np.testing.assert_array_equal(getattr(done, stamp), getattr(twin, stamp), err_msg=stamp)
    seconds = natural._seconds(steps, "cpu_seconds")
    assert (np.diff(seconds(np.sort(done.finished_at))) >= 0).all()
    assert seconds(done.finished_at).max() <= steps["cpu_seconds"].sum() * (1 + 1e-9)


def test_a_prompt_that_does_not_fit_is_one_sentence_and_the_engine_goes_on(live, usual):
    with pytest.raises(InputError, match=r"^prompt 2 has \d+ tokens; beside an answer of 40 the"):
        answered(live, order=["Say hi.", "word " * 3000])
    assert answered(live)[2] == usual[2]


def test_over_http_the_answers_are_the_same_and_the_header_is_the_order(live, usual, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # clients do not take the detour
    texts, ended = TEXTS[1:5], usual[3][1:5]
    with closing(serving(deployment("cpu-smollm2"), 1)) as server:
        burst = chats(server, texts, GREEDY, [4, 3, 2, 1])
        users = chats(server, texts, GREEDY, users=2)
        counted = server.get("/metrics")
    lengths = [len(usual[2][text]) for text in texts]
    assert burst["output_tokens"].tolist() == users["output_tokens"].tolist() == lengths
    assert (burst["answer"] == users["answer"]).all()
    assert (burst["finish_reason"] == np.where(ended, "stop", "length")).all()
    # one slot: whoever comes first has it, and those that wait are served by header, the last first
    waited = np.argsort(burst["first_token_at"].to_numpy())[1:].tolist()
    assert waited == sorted(waited, reverse=True)
    assert (users["finished_at"] > users["arrived_at"]).all()
    assert 'ssjf_unpredicted_total{reason="client_priority"}' in counted


def test_runs_know_the_lengths_before_and_the_simulator_gives_the_same_steps(
    live, tmp_path, monkeypatch
):
    file = tmp_path / "prompts.jsonl"
    pd.DataFrame({"prompt": TEXTS, "output_tokens": 9}).to_json(file, orient="records", lines=True)
    shared = {"protocol": "measured", "deployment": "cpu-smollm2", "decoding": GREEDY}
    asked = {"draw": "asked", "data": str(file), "prompts": len(TEXTS)}
    spec = spec_of(
        shared | {"experiment": "a", "engine": "answers", "detail": "measurements", "series": "s",
                  "workload": asked}, "test")  # fmt: skip
    known = answers.rows(spec)
    assert not {text for text in TEXTS} & set(map(str, known.to_numpy().ravel()))
    assert known["split"].isin(["train", "val", "test"]).all() and known["sample"].eq(0).all()
    assert (known["finish_reason"] == "length").equals(known["output_tokens"] == 40)
    pool = known[["prompt_hash", "output_tokens"]].assign(guess=known["output_tokens"] + 3.0)
    monkeypatch.setattr(natural, "draw", lambda options: pool)
    workload = {"draw": "natural", "data": str(file), "requests": 5, "seeds": [0, 1],
                "pool": {"draw": "predicted", "of": ["a"]}}  # fmt: skip
    run = shared | {"experiment": "b", "detail": "requests", "series": "ssjf", "policy": "ssjf",
                    "predictor": "column:guess", "slots": 2, "rho": 1.1,
                    "workload": workload}  # fmt: skip
    served, simulated = (
        natural.rows(spec_of(run | {"engine": engine}, "test"))
        for engine in ("vllm-natural", "natural")
    )
    pd.testing.assert_frame_equal(served[simulated.columns], simulated)
    assert served["output_tokens"].equals(served["known_tokens"])
    texts = known.set_index("prompt_hash")["answer"]
    assert (served["prompt_hash"].map(texts) == served["answer"]).all()
    assert (served["cpu_finished_at"] > served["cpu_arrived_at"]).all()


def test_repetition_is_the_share_of_grams_that_came_before():
    assert repeated(np.arange(50)) == 0
    assert repeated(np.array([1, 2, 3])) == 0
    assert repeated(np.tile([5, 6], 20)) == pytest.approx(1 - 2 / 37)
    assert digest(np.array([1, 2])) != digest(np.array([12]))
    assert seed_of("a", 0) != seed_of("a", 1) and 0 <= seed_of("a", 0) < 2**28


def test_stamps_in_steps_become_seconds():
    steps = {"started_at": np.array([0.0, 1, 5]), "ended_at": np.array([1.0, 2, 6]),
             "cpu_seconds": np.array([2.0, 4, 8])}  # fmt: skip
    seconds = natural._seconds(steps, "cpu_seconds")
    pd.testing.assert_series_equal(
        pd.Series(seconds(np.array([0, 0.5, 1, 2, 3.5, 5, 6]))),
        pd.Series([0, 1, 2, 6, 6, 6, 14.0]),
    )
