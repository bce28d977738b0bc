"""What finished requests teach: only whole answers that the model ended, and it is kept."""

import asyncio
import json
import math

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_tools import (
    CHAT,
    COMPLETIONS,
    HEADER,
    PATIENT,
    FakeProxy,
    answer,
    counted,
    counting,
    live,
    read,
    reply,
    serving,
    wrapped,
)
from ssjf.proxy.base import LEVELS, ResidualQuantiles
from ssjf.proxy.calibration import Calibrator
from ssjf.proxy.retrieval.index import VectorIndex
from ssjf.proxy.retrieval.proxy import Mlp, RetrievalConfig, RetrievalProxy
from ssjf.serving import forecaster
from ssjf.serving.forecaster import Calibrating, Forecaster, Remembering
from ssjf.serving.openai import CompletionRequest
from ssjf.serving.response import TAIL_BYTES, NotLearnable, Response, SseResponse

STREAM = b"text/event-stream"
FREE = {"max_tokens": None}  # a completion may be as long as it likes


def events(*told, usage=None, done=True):
    """A stream of chunks (text or delta, finish_reason), as vLLM sends them."""
    lines = []
    for said, finish in told:
        choice = {"index": 0, "finish_reason": finish}
        choice |= {"text": said} if isinstance(said, str) else {"delta": said}
        lines.append({"id": "1", "choices": [choice]})
    if usage:
        lines.append({"id": "1", "choices": [], "usage": {"completion_tokens": usage}})
    return "".join(f"data: {json.dumps(line)}\n\n" for line in lines) + "data: [DONE]\n\n" * done


def length(observer, data, size=None):
    """What an observer makes of a body that comes in parts of so many bytes."""
    size = size or max(len(data), 1)
    for start in range(0, len(data), size):
        observer.add(data[start : start + size])
    try:
        return observer.output_tokens()
    except NotLearnable as why:
        return str(why)


# Reading answers


@given(st.integers(1, 10**6), st.booleans(), st.integers(1, 400), st.text())
def test_the_usage_of_a_body_is_its_length(tokens, chat, size, text):
    told = answer(tokens, chat=chat)
    told["choices"][0]["message" if chat else "text"] = {"content": text} if chat else text
    assert length(Response(), json.dumps(told).encode(), size) == tokens


TRICK = '"finish_reason":"length","usage":{"completion_tokens":1},'


@pytest.mark.parametrize("finish, expected", [("stop", 9), ("length", "cut_off")])
def test_of_a_huge_body_the_end_is_read(finish, expected):
    told = answer(9, finish, chat=True)
    told["choices"][0]["message"]["content"] = TRICK * (3 * TAIL_BYTES // len(TRICK))
    assert length(Response(), json.dumps(told).encode(), 5000) == expected


@pytest.mark.parametrize(
    "told, reason",
    [({}, "unreadable"), ([], "unreadable"), ({"choices": "a"}, "unreadable"),
     (answer(5, "length"), "cut_off"), (answer(5, "tool_calls"), "other_finish"),
     (answer(0), "unreadable"), (answer(5) | {"usage": None}, "unreadable"),
     (answer(5) | {"usage": {"completion_tokens": True}}, "unreadable")],
)  # fmt: skip
def test_bodies_that_teach_nothing(told, reason):
    assert length(Response(), json.dumps(told).encode()) == reason


CHUNKS = [({"role": "assistant", "content": ""}, None), ({"content": "Hello"}, None),
          ({"reasoning": "so"}, None), ({"tool_calls": [{"index": 0}]}, None),
          ({"content": ""}, "stop")]  # fmt: skip


@given(st.integers(1, 200), st.booleans())
def test_a_stream_is_read_however_it_is_cut(size, crlf):
    def of(text):
        return length(SseResponse(), (text.replace("\n", "\r\n") if crlf else text).encode(), size)

    assert of(events(*CHUNKS)) == 3  # those that say something
    assert of(events(*CHUNKS, usage=17)) == 17
    assert of(events(("a", None), ("", None), ("b", "stop"))) == 2
    assert of(events(*CHUNKS[:-1], ({}, "length"), usage=17)) == "cut_off"
    assert of(events(*CHUNKS[:-1])) == "unreadable"
    assert of(": a comment\n\ndata: {\n\n" + events(*CHUNKS)) == 3


def test_usage_that_is_told_on_the_way_counts_by_its_last():
    told = [
        {"choices": [{"text": "a", "finish_reason": None}], "usage": {"completion_tokens": 3}},
        {"choices": [{"text": "", "finish_reason": "stop"}], "usage": {"completion_tokens": 8}},
    ]
    text = "".join(f"data: {json.dumps(each)}\n\n" for each in told)
    assert length(SseResponse(), text.encode()) == 8


def test_an_endless_line_is_not_kept():
    observer = SseResponse()
    for _ in range(100):
        observer.add(b"data: " + b"a" * 100_000)
        assert len(observer._line) < 4 * 10**5
    assert length(observer, ("\n" + events(*CHUNKS)).encode()) == 3


# Learning


class Script:
    """An application that answers with what is set."""

    def __init__(self):
        self.body, self.kind, self.status, self.headers = b"", b"application/json", 200, ()
        self.priority = None

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            return await live(receive, send)
        await read(receive)
        self.priority = int(dict(scope["headers"])[HEADER])
        await reply(send, self.body, self.status, self.kind, self.headers)

    def says(self, told, kind=b"application/json", status=200, headers=()):
        self.body = told.encode() if isinstance(told, str) else json.dumps(told).encode()
        self.kind, self.status, self.headers = kind, status, headers


@pytest.fixture(scope="module")
def school():
    """A scripted server, its middleware's calibrators, and a way to ask it."""
    script = Script()
    middleware = wrapped(script, **PATIENT)
    with serving(middleware) as address, httpx.Client(base_url=address, timeout=600) as client:

        def ask(path=COMPLETIONS, **members):
            client.post(path, json=FREE | {"prompt": "100"} | members)

        yield script, middleware._predictor.forecaster.calibrators, ask


def points(calibrators, model):
    found = calibrators[model].state() if model in calibrators else Calibrator().state()
    return [*zip(found["predicted_tokens"], found["output_tokens"], strict=True)]


def test_a_body_and_a_stream_teach(school):
    script, calibrators, ask = school
    script.says(answer(7))
    with counting("learned_total"), counting("prediction_log_ratio_count"):
        ask(model="one")
    script.says(events(*CHUNKS, usage=9), STREAM)
    messages = [{"role": "user", "content": "200"}]
    before = counted("prediction_log_ratio_sum")
    with counting("learned_total"):
        ask(CHAT, model="one", messages=messages, stream=True)
    ratio = counted("prediction_log_ratio_sum") - before
    assert ratio == pytest.approx(abs(math.log(200 / 9)))
    assert points(calibrators, "one") == [(100, 7), (200, 9)]


NOT_LEARNABLE = {
    "status": (answer(7), b"application/json", 500, ()),
    "cut_off": (answer(7, "length"), b"application/json", 200, ()),
    "other_finish": (answer(7, "abort"), b"application/json", 200, ()),
    "unreadable": ("<html>", b"text/html", 200, ()),
    "encoded": (answer(7), b"application/json", 200, [(b"content-encoding", b"gzip-not")]),
}


@pytest.mark.parametrize("reason", NOT_LEARNABLE)
def test_what_teaches_nothing(school, reason):
    script, calibrators, ask = school
    script.says(*NOT_LEARNABLE[reason])
    with counting("not_learned_total", reason=reason):
        ask(model="none")
    assert "none" not in calibrators


@pytest.mark.parametrize(
    "reason, members",
    [("several_answers", {"n": 2}), ("several_answers", {"prompt": ["1", "2"]}),
     ("limited", {"max_tokens": 199})],
)  # fmt: skip
def test_requests_that_teach_nothing(school, reason, members):
    """The fake's largest quantile is twice its prediction: of a smaller limit only the short ones
    would be learned from."""
    script, calibrators, ask = school
    script.says(answer(7))
    with counting("not_learned_total", reason=reason):
        ask(model="none", **members)
    assert "none" not in calibrators
    with counting("learned_total"):
        ask(model="some", max_tokens=200)


def test_nothing_is_learned_where_it_is_not_asked_for():
    script = Script()
    script.says(answer(7))
    with (
        serving(wrapped(script, kind=Forecaster, **PATIENT)) as address,
        counting("not_learned_total", reason="learn_is_none"),
        counting("prediction_log_ratio_count"),
    ):
        httpx.post(address + COMPLETIONS, json={"prompt": "5"} | FREE)


def test_a_client_that_leaves_teaches_nothing():
    """It goes in the middle of a stream that the server sends on to its end."""

    async def app(scope, receive, send):
        await receive()
        headers = [(b"content-type", STREAM)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        text = events(*CHUNKS, usage=9).encode()
        await send({"type": "http.response.body", "body": text, "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.body", "body": b""})

    async def run():
        messages = [{"type": "http.request", "body": b'{"prompt":"100"}'},
                    {"type": "http.disconnect"}]  # fmt: skip

        async def receive():
            return messages.pop(0)

        async def send(message):
            pass

        scope = {"type": "http", "method": "POST", "path": COMPLETIONS, "headers": []}
        await wrapped(app, **PATIENT)(scope, receive, send)

    with counting("not_learned_total", reason="disconnected"):
        asyncio.run(run())


def test_an_answer_that_breaks_off_teaches_nothing():
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            return await live(receive, send)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})

    with (
        serving(wrapped(app, **PATIENT)) as address,
        counting("not_learned_total", reason="unfinished"),
        pytest.raises(httpx.HTTPError),
    ):
        httpx.post(address + COMPLETIONS, json={"prompt": "100"})


def test_lengths_that_were_learned_correct_the_next_keys():
    """A model that answers three times as long as predicted, and one that is not known."""
    script = Script()
    with serving(wrapped(script, overtake_seconds=None, **PATIENT)) as address:
        for tokens in np.linspace(50, 300, 40).astype(int):
            script.says(answer(3 * int(tokens)))
            with counting("learned_total"):
                httpx.post(address + COMPLETIONS, json=FREE | {"prompt": str(tokens), "model": "m"})
        seen = []
        for model in ("m", "other"):
            httpx.post(address + COMPLETIONS, json=FREE | {"prompt": "150", "model": model})
            seen.append(script.priority)
    assert seen[0] == pytest.approx(450_000, rel=0.05) and seen[1] == 150_000


def test_a_bounded_number_of_models_is_kept():
    found = Calibrating(FakeProxy())
    for i in range(forecaster.MAX_MODELS + 3):
        found.learn(CompletionRequest(("1",), f"m{i}"), 5.0, 5)
        found.learn(CompletionRequest(("1",), "used"), 5.0, 5)
    assert len(found.calibrators) == forecaster.MAX_MODELS
    assert {"used", f"m{i}"} < found.calibrators.keys() and "m0" not in found.calibrators


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.floats(1, 900), st.integers(1, 900)), max_size=40)
)
def test_forecasts_are_those_of_each_models_calibrator(finished):
    found, expected = Calibrating(FakeProxy()), {"a": Calibrator(), "b": Calibrator()}
    for model, raw, tokens in finished:
        found.learn(CompletionRequest(("1",), model), raw, tokens)
        expected[model].observe(raw, tokens)
    again = Calibrating(FakeProxy())
    again.restore(found.state())
    requests = [
        CompletionRequest(("70", "30"), "a"),
        CompletionRequest(("40",), "b"),
        CompletionRequest(("9",), "c"),
    ]
    right = [expected["a"].calibrate([70.0])[0], expected["b"].calibrate([40.0])[0], 9.0]
    for each in (found, again):
        assert [each.forecast(request).tokens for request in requests] == right
        assert [each.forecast(request).raw for request in requests] == [70, 40, 9]


# Retrieval


class Letters:
    """An encoder for tests: how often each of eight letters stands in a prompt."""

    def vectors(self, prompts):
        found = np.array([[1e-3 + prompt.count(c) for c in "abcdefgh"] for prompt in prompts])
        return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def retrieval():
    memory = VectorIndex(8, 1, 1000)
    memory.add(Letters().vectors(["a", "b"]), np.log([[10.0], [20.0]]))
    none = ResidualQuantiles(np.zeros(0), np.zeros((1, len(LEVELS))))
    mlp = Mlp([(np.zeros((8, 1), np.float32), np.zeros(1, np.float32))])
    config = RetrievalConfig(neighbours=1, capacity=1000, least_similarity=-1.0)
    return RetrievalProxy(config, Letters(), np.eye(8), memory, mlp, none, none)


def test_a_retrieval_proxy_remembers_what_finished(retrieval):
    script = Script()
    script.says(answer(500))
    with (
        serving(wrapped(script, retrieval, Remembering, **PATIENT)) as address,
        counting("learned_total"),
    ):
        httpx.post(address + COMPLETIONS, json=FREE | {"prompt": "ccc"})
    assert retrieval.predict(["cc"]).tokens[0] == pytest.approx(500, rel=1e-3)
    assert retrieval.predict(["aa"]).tokens[0] == pytest.approx(10, rel=1e-3)
    found = Remembering(retrieval)
    found.restore(found.state())
    assert found.proxy is not retrieval and len(found.proxy.memory) == 3


def test_of_what_was_remembered_the_oldest_goes_but_never_what_was_trained_on(
    retrieval, monkeypatch
):
    monkeypatch.setattr(forecaster, "MAX_PROMPTS", 5)
    found = Remembering(retrieval)
    for tokens in range(30, 50):
        found.learn(CompletionRequest(("c" * tokens + "d",)), 1.0, tokens)
    assert len(retrieval.memory) == 2 + 5
    lengths = np.sort(np.exp(retrieval.memory.search(Letters().vectors(["c"])[0], 9)[1][:, 0]))
    assert np.allclose(lengths, [10, 20, 45, 46, 47, 48, 49], rtol=1e-3)
