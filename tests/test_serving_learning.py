"""What finished requests teach: only whole answers that the model ended, and it is kept."""

import asyncio
import json
import math

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from scipy.stats import spearmanr

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
from ssjf.proxy.refit import prequential
from ssjf.serving import forecaster
from ssjf.serving.forecaster import Forecaster, Refitting
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
        tokens, cut_off = observer.output_tokens()
        return (tokens, "cut off") if cut_off else tokens
    except NotLearnable as why:
        return str(why)


# Reading answers


@given(st.integers(1, 10**6), st.booleans(), st.integers(1, 400), st.text())
def test_the_usage_of_a_body_is_its_length(tokens, chat, size, text):
    told = answer(tokens, chat=chat)
    told["choices"][0]["message" if chat else "text"] = {"content": text} if chat else text
    assert length(Response(), json.dumps(told).encode(), size) == tokens


TRICK = '"finish_reason":"length","usage":{"completion_tokens":1},'


@pytest.mark.parametrize("finish, expected", [("stop", 9), ("length", (9, "cut off"))])
def test_of_a_huge_body_the_end_is_read(finish, expected):
    told = answer(9, finish, chat=True)
    told["choices"][0]["message"]["content"] = TRICK * (3 * TAIL_BYTES // len(TRICK))
    assert length(Response(), json.dumps(told).encode(), 5000) == expected


@pytest.mark.parametrize(
    "told, reason",
    [({}, "unreadable"), ([], "unreadable"), ({"choices": "a"}, "unreadable"),
     (answer(0, "length"), "unreadable"), (answer(5, "tool_calls"), "other_finish"),
     (answer(0), "unreadable"), (answer(5) | {"usage": None}, "unreadable"),
     (answer(5) | {"usage": {"completion_tokens": True}}, "unreadable")],
)  # fmt: skip
def test_bodies_that_teach_nothing(told, reason):
    assert length(Response(), json.dumps(told).encode()) == reason


OTHERS = [
    ("/v1/responses", {"output": [{"status": "completed", "content": [{"text": TRICK}]}],
                       "status": "{}", "text": {"format": {"type": "text"}}, "usage": {
                           "input_tokens": 99, "input_tokens_details": {"cached_tokens": 5},
                           "output_tokens": 9, "output_tokens_details": {}}}),
    ("/v1/messages", {"content": [{"type": "text", "text": '"output_tokens": 1'}],
                      "stop_reason": "{}", "usage": {"input_tokens": 4, "output_tokens": 9}}),
]  # fmt: skip


@pytest.mark.parametrize(("route", "told"), OTHERS, ids=[route for route, _ in OTHERS])
@pytest.mark.parametrize("kind", [Response, SseResponse])
def test_answers_of_the_other_two_routes(route, told, kind):
    """As one object, and as the last of a stream's events."""
    words = {"/v1/responses": ("completed", "incomplete", "failed"),
             "/v1/messages": ("end_turn", "max_tokens", "tool_use")}[route]  # fmt: skip
    for word, expected in zip(words, (9, (9, "cut off"), "other_finish"), strict=True):
        text = json.dumps(told).replace('"{}"', f'"{word}"')
        if kind is SseResponse:
            text = f'event: start\ndata: {{"usage": {{"output_tokens": 0}}}}\n\ndata: {text}\n\n'
        assert length(kind(route), text.encode(), 50) == expected


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
    assert of(events(*CHUNKS[:-1], ({}, "length"), usage=17)) == (17, "cut off")
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
    """A scripted server, what its middleware learned by model, and a way to ask it."""
    script = Script()
    middleware = wrapped(script, **PATIENT)
    with serving(middleware) as address, httpx.Client(base_url=address, timeout=600) as client:

        def ask(path=COMPLETIONS, **members):
            client.post(path, json=FREE | {"prompt": "100"} | members)

        yield script, middleware._predictor.forecaster.learners, ask


def points(learners, model):
    """Predicted and finished tokens, and whether they were cut off."""
    return [
        (round(math.exp(row.reading.shipped)), round(math.exp(row.length)), row.cut_off)
        for row in learners[model]._rows
    ]


def test_a_body_and_a_stream_teach(school):
    script, learners, ask = school
    script.says(answer(7))
    with counting("learned_total"), counting("prediction_log_ratio_count"):
        ask(model="one")
    script.says(events(*CHUNKS, usage=9), STREAM)
    messages = [{"role": "user", "content": "200"}]
    before = counted("prediction_log_ratio_sum")
    with counting("learned_total"):
        ask(CHAT, model="one", messages=messages, stream=True)
    ratio = counted("prediction_log_ratio_sum") - before
    assert 0 < ratio < abs(math.log(200 / 9))  # the first has corrected the second a little
    assert points(learners, "one") == [(100, 7, False), (200, 9, False)]


def test_an_answer_that_was_cut_off_teaches_that_it_is_longer(school):
    script, learners, ask = school
    script.says(answer(7, "length"))
    before = counted("prediction_log_ratio_count")
    with counting("learned_total"):
        ask(model="cut", max_tokens=7)
    assert points(learners, "cut") == [(100, 7, True)]
    assert counted("prediction_log_ratio_count") == before  # how long it is, is not known


NOT_LEARNABLE = {
    "status": (answer(7), b"application/json", 500, ()),
    "other_finish": (answer(7, "abort"), b"application/json", 200, ()),
    "unreadable": ("<html>", b"text/html", 200, ()),
    "encoded": (answer(7), b"application/json", 200, [(b"content-encoding", b"gzip-not")]),
}


@pytest.mark.parametrize("reason", NOT_LEARNABLE)
def test_what_teaches_nothing(school, reason):
    script, learners, ask = school
    script.says(*NOT_LEARNABLE[reason])
    with counting("not_learned_total", reason=reason):
        ask(model="none")
    assert "none" not in learners


@pytest.mark.parametrize(
    "reason, members",
    [("several_answers", {"n": 2}), ("several_answers", {"prompt": ["1", "2"]})],
)
def test_requests_that_teach_nothing(school, reason, members):
    script, learners, ask = school
    script.says(answer(7))
    with counting("not_learned_total", reason=reason):
        ask(model="none", **members)
    assert "none" not in learners


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
    with serving(wrapped(script, policy="ssjf", **PATIENT)) as address:
        for tokens in np.linspace(50, 300, 40).astype(int):
            script.says(answer(3 * int(tokens)))
            with counting("learned_total"):
                httpx.post(address + COMPLETIONS, json=FREE | {"prompt": str(tokens), "model": "m"})
        seen = []
        for model in ("m", "other"):
            httpx.post(address + COMPLETIONS, json=FREE | {"prompt": "150", "model": model})
            seen.append(script.priority)
    assert seen[0] == pytest.approx(450_000, rel=0.2) and seen[1] == 150_000


def taught(found, model, pairs):
    """Have a forecaster learn of requests by what the fake predicts, which is in the prompt."""
    for predicted, output in pairs:
        request = CompletionRequest((f"{predicted} words",), model)
        found.learn(model, found.forecast(request), output, False)
    return found


def test_a_bounded_number_of_models_is_kept():
    found = Refitting(FakeProxy())
    for i in range(forecaster.MAX_MODELS + 3):
        taught(taught(found, f"m{i}", [(5, 5)]), "used", [(5, 5)])
    assert len(found.learners) == forecaster.MAX_MODELS
    assert {"used", f"m{i}"} < found.learners.keys() and "m0" not in found.learners


MIXED = [(10 * i, 3000 // i) for i in range(1, 60)]  # the opposite of what the fake says


def test_each_model_is_learned_by_itself_and_all_go_through_the_state():
    found = taught(taught(Refitting(FakeProxy()), "a", MIXED), "ö", [(40, 400)] * 9)
    again = Refitting(FakeProxy())
    again.restore(found.state())
    for each in (found, again):
        told = {
            m: each.forecast(CompletionRequest(("40 words",), m)).tokens for m in ("a", "ö", "b")
        }
        assert told["b"] == 40 < told["ö"] / 3
        short, long = (each.forecast(CompletionRequest((f"{n} words",), "a")) for n in (550, 20))
        assert short.tokens < long.tokens
    assert [*again.learners] == ["a", "ö"] and again.state() == found.state()


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-40], lambda b: b[:9], lambda b: b"{}", lambda b: b""]
)
def test_a_state_that_is_none_is_refused(damage):
    state = taught(Refitting(FakeProxy()), "a", MIXED[:9]).state()
    with pytest.raises((ValueError, LookupError, SafetensorError)):
        Refitting(FakeProxy()).restore(damage(state))


def test_of_several_prompts_the_longest_counts():
    found = taught(Refitting(FakeProxy()), "a", [(n, n) for n in range(10, 60)])
    alone = [found.forecast(CompletionRequest((p,), "a")).tokens for p in ("12", "55")]
    assert found.forecast(CompletionRequest(("12", "55"), "a")).tokens == max(alone)


def test_a_refit_that_fails_costs_no_request(monkeypatch):
    def fails(*_):
        raise ArithmeticError

    monkeypatch.setattr("ssjf.proxy.refit.Ridge.fit", fails)
    script = Script()
    script.says(answer(5))
    with (
        serving(wrapped(script, policy="ssjf", **PATIENT)) as address,
        counting("learned_total", by=39),
        counting("not_learned_total", reason="error"),
    ):
        for _ in range(40):
            found = httpx.post(address + COMPLETIONS, json=FREE | {"prompt": "50"})
            assert found.status_code == 200
    monkeypatch.setattr("ssjf.proxy.refit.Refit.predict", fails)
    assert Refitting(FakeProxy()).forecast(CompletionRequest(("70",))).tokens == 70


def test_what_is_predicted_is_what_prequential_predicts():
    """On the same requests in the same order."""
    found, proxy = Refitting(FakeProxy()), FakeProxy()
    prompts = [f"{predicted} words" for predicted, _ in MIXED * 3]
    lengths = [output for _, output in MIXED * 3]
    expected = prequential(prompts, lengths, proxy)
    for prompt, output, tokens in zip(prompts, lengths, expected, strict=True):
        request = CompletionRequest((prompt,), "a")
        forecast = found.forecast(request)
        assert forecast.tokens == tokens
        found.learn("a", forecast, output, False)
    assert spearmanr(expected[60:], lengths[60:])[0] > 0.9
