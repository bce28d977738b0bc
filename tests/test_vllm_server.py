"""The real vLLM behind the middleware: order, metrics, clients and the end; plain vLLM beside."""

import http.client
import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

import vllm_engine
from serving_tools import PATIENT, serving, until, wrapped
from ssjf.errors import InputError
from ssjf.harness.bench_client import Load, measured
from ssjf.harness.deployment import Deployment
from ssjf.harness.interpreter import python
from ssjf.harness.models import make
from ssjf.harness.server import LiveServer, environment, options_of
from ssjf.proxy import io as folder
from ssjf.serving.options import ServeOptions
from ssjf.serving.replicas.route import Route

pytestmark = [vllm_engine.needed, pytest.mark.slow]

ONE_SLOT = Deployment(
    name="one-slot", shape="mid", slots=1, token_budget=2048, kv_tokens=8192, block_tokens=32,
    context_tokens=2048, memory_share=0.2,
)  # fmt: skip
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
PROMPTS = (
    "Write a detailed essay about railways, with an introduction and a conclusion.",
    "What is the capital city of France?",
    "Summarise the history of glass in a paragraph.",
    "Translate 'bees' into French.",
    "List ten facts about the moon.",
)
LONG_ENOUGH = 200  # tokens: a client on a busy machine hears of one answer before the next ends
OPENAI = """
import sys
from openai import OpenAI
client, model = OpenAI(base_url=sys.argv[1], api_key="none"), sys.argv[2]
common = {"model": model, "max_tokens": 6, "extra_body": {"ignore_eos": True}}
says = [{"role": "user", "content": "Name a colour."}]
whole = client.completions.create(prompt="Name a colour.", **common)
chat = client.chat.completions.create(messages=says, **common)
parts = list(client.completions.create(prompt="Name a colour.", stream=True, **common))
said = list(client.chat.completions.create(messages=says, stream=True, **common))
print(whole.usage.completion_tokens, chat.usage.completion_tokens,
      parts[-1].choices[0].finish_reason, said[-1].choices[0].finish_reason)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make("mid", tmp_path_factory.mktemp("served") / "mid")


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    return tmp_path_factory.mktemp("state") / "learned.json"


def made(model, options=None):
    return LiveServer(
        str(model),
        options_of(ONE_SLOT, 1, model),
        None if options is None else options.environment(),
    )


@pytest.fixture(scope="module")
def servers(model, state):
    """With the middleware in pure order of predicted length, and without; they start together.

    Forced lengths are not told to the predictor.
    """
    chosen = ServeOptions(policy="ssjf", client_limit="ignore", deadline_ms=60_000,
                          state=str(state), save_seconds=3600)  # fmt: skip
    live = {"ssjf": made(model, chosen), "plain": made(model)}
    try:
        for each in live.values():
            each.launch()
        for each in live.values():
            each.wait()
        yield live
    finally:
        for each in live.values():
            each.close()


@pytest.fixture
def server(servers):
    return servers["ssjf"]


def counted(server, name):
    """Of all labels; the middleware's come with its first request."""
    found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", server.get("/metrics"), re.MULTILINE)
    return sum(map(float, found))


def asking(server, prompt, tokens, **more):
    return {"model": server.model, "prompt": prompt, "max_tokens": tokens, "ignore_eos": True,
            **more}  # fmt: skip


def streamed(server, body):
    """An open response of which the first token has come."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
    connection.request("POST", COMPLETIONS, json.dumps(body | {"stream": True}),
                       {"content-type": "application/json"})  # fmt: skip
    response = connection.getresponse()
    assert response.status == 200 and response.readline().startswith(b"data:")
    return connection, response


def served_order(server):
    """In which order the prompts, which arrive as they stand, finish in the one slot.

    A long request holds it until all of them wait, and is then given up by its client.
    """
    connection, response = streamed(server, asking(server, "Hold the slot for me.", 1900))
    finished = []

    def ask(prompt, whole):
        if whole:
            server.post(COMPLETIONS, asking(server, prompt, LONG_ENOUGH))
        else:
            streamed(server, asking(server, prompt, LONG_ENOUGH))[1].read()
        finished.append(prompt)

    with ThreadPoolExecutor(len(PROMPTS)) as threads:
        asked = []
        for i, prompt in enumerate(PROMPTS):
            asked.append(threads.submit(ask, prompt, i % 2 == 0))
            until(lambda n=i + 1: counted(server, "vllm:num_requests_waiting") == n)
        response.close()
        connection.close()
        for each in asked:
            each.result(600)
    return finished


def test_what_waits_is_served_in_the_order_of_predicted_length(server):
    said = folder.load("builtin").predict(list(PROMPTS)).tokens
    assert len(set(said)) == len(PROMPTS)
    before = {name: counted(server, name) for name in
              ("ssjf_predictions_total", "ssjf_requests_overtaking_total")}  # fmt: skip
    expected = [PROMPTS[i] for i in np.argsort(said)]
    assert expected != list(PROMPTS)
    assert served_order(server) == expected
    rose = {name: counted(server, name) - was for name, was in before.items()}
    assert rose["ssjf_predictions_total"] == len(PROMPTS) + 1
    overtaking = sum(any(PROMPTS.index(later) < PROMPTS.index(prompt) for later in expected[i:])
                     for i, prompt in enumerate(expected))  # fmt: skip
    assert rose["ssjf_requests_overtaking_total"] == overtaking


def test_vllm_alone_serves_them_first_come_first_served(servers):
    assert served_order(servers["plain"]) == list(PROMPTS)
    assert "ssjf_" not in servers["plain"].get("/metrics")


SAYS = [{"role": "user", "content": "Name a colour."}]
ROUTES = {
    COMPLETIONS: {"prompt": "Name a colour.", "max_tokens": 6},
    CHAT: {"messages": SAYS, "max_tokens": 6},
    "/v1/responses": {"input": "Name a colour.", "max_output_tokens": 6},
    "/v1/messages": {"messages": SAYS, "max_tokens": 6},
}


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("stream", [False, True])
def test_every_route_is_predicted_answered_and_learned_from(server, path, stream):
    """Learned from where an answer has words: one that the model ends at once has none."""
    names = ("ssjf_predictions_total", "ssjf_learned_total", "ssjf_not_learned_total")
    before = [counted(server, name) for name in names]
    body = {"model": server.model, "stream": stream, **ROUTES[path]}
    for n in range(1, 6):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200 and len(response.read()) > 50

        def rose():
            return [counted(server, name) - was for name, was in zip(names, before, strict=True)]

        until(lambda n=n, rose=rose: rose()[0] >= n and sum(rose()[1:]) >= n)
        if rose()[1]:
            return
    raise AssertionError("nothing is learned from")


def test_it_is_routed_to_with_a_priority_and_answers_whole(server):
    """Through ``ssjf route``: the server's own middleware takes the priority for a client's."""
    before = counted(server, "ssjf_predictions_total")
    upstream = Route([f"http://127.0.0.1:{server.port}"])
    with serving(wrapped(upstream, policy="ssjf", **PATIENT)) as address:
        for path, members in ROUTES.items():
            found = httpx.post(address + path, json={"model": server.model, **members}, timeout=600)
            assert found.status_code == 200, found.text
    assert counted(server, "ssjf_predictions_total") == before + len(ROUTES)


def test_the_openai_client_sees_no_difference(server):
    command = [python(), "-c", OPENAI, f"http://127.0.0.1:{server.port}/v1", server.model]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600,
                          env=environment(server.model))  # fmt: skip
    assert done.stdout.split() == ["6", "6", "length", "length"], done.stderr


@pytest.mark.parametrize("name", ["plain", "ssjf"])
def test_a_load_is_recorded_request_by_request(servers, name, monkeypatch):
    """What ``vllm bench serve`` says of each, and the middleware's own clock where there is one."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # clients do not take the detour
    tokens = np.array([3, 1, 7, 4, 2, 6])
    prompts = [f"{prompt} Be brief." for prompt in (*PROMPTS, "Name a colour.")]
    rows = measured(servers[name], prompts, tokens, Load(rate=50), seed=0)
    assert rows["output_tokens"].tolist() == tokens.tolist()
    assert (rows["arrived_at"].diff()[1:] >= 0).all() and (rows["prompt_tokens"] > 5).all()
    assert (rows["e2el_seconds"] >= rows["ttft_seconds"]).all()
    assert (rows["ttft_seconds"] > 0).all()
    assert not rows.select_dtypes(exclude="number").columns.tolist()  # and no text
    if name == "plain":
        assert rows[["overhead_ms", "predictor_ms", "predicted"]].isna().all(axis=None)
    else:
        assert (rows["predicted"] == 6).all() and (rows["predictor_ms"] > 0).all()
        assert (rows["overhead_ms"] >= rows["predictor_ms"]).all()


def test_a_proxy_that_is_none_is_one_sentence(model, tmp_path):
    with pytest.raises(InputError, match=r"did not start: ssjf: .*nowhere is no proxy"):
        made(model, ServeOptions(proxy=str(tmp_path / "nowhere"))).start()


def test_what_was_learned_is_saved_when_it_is_asked_to_end(server, state):
    """The last test of the server: an answer that the model ends by itself teaches."""
    ends = {"ignore_eos": False, "min_tokens": 5, "stop_token_ids": list(range(2, 1024))}
    before = counted(server, "ssjf_learned_total")
    server.post(COMPLETIONS, asking(server, PROMPTS[1], 1900) | ends)
    until(lambda: counted(server, "ssjf_learned_total") == before + 1)
    assert not state.exists()
    server.terminate()
    head, _, learned = state.read_bytes().partition(b"\n")
    assert json.loads(head)["learn"] == "refit"
    assert server.model.encode() in learned


def test_a_running_request_gives_way_and_goes_on_where_it_was(model, servers):
    """One slot: a long answer begins, a short one passes it, and no word of it is another."""
    long = asking(servers["plain"], PROMPTS[0], 900, temperature=0)
    alone = servers["plain"].post(COMPLETIONS, long)["choices"][0]["text"]
    chosen = ServeOptions(preempt=0.9, deadline_ms=60_000)
    live = made(model, chosen)
    try:
        live.start()
        prefilled = counted(live, "vllm:prompt_tokens_total")
        connection, response = streamed(live, long)
        short = live.post(COMPLETIONS, asking(live, PROMPTS[1], 2))
        assert short["usage"]["completion_tokens"] == 2
        rest = [line[6:] for line in response if line.startswith(b"data: {")]
        connection.close()
        assert len(rest) > 100  # most of it came afterwards
        assert alone.endswith("".join(json.loads(each)["choices"][0]["text"] for each in rest))
        assert counted(live, "vllm:num_preemptions_total") == 1
        prompts = counted(live, "vllm:prompt_tokens_total") - prefilled
        assert prompts <= sum(map(len, PROMPTS[:2]))  # of bytes: nothing was computed again
    finally:
        live.close()
