"""A completion request: its body as JSON, its prompts, model and limits."""

import json
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vllm_engine
from ssjf.harness.interpreter import python
from ssjf.serving.openai import (
    CHAT,
    COMPLETIONS,
    MAX_PROMPTS,
    MESSAGES,
    NO,
    RESPONSES,
    NotPredicted,
    answers,
    by_metadata,
    completion_request,
    least_tokens,
    max_tokens,
    parsed,
)
from ssjf.workload.text_formats import histories
from ssjf.workload.texts import Texts


def read(body, chat=False, history=False):
    return completion_request(body, CHAT if chat else COMPLETIONS, history)


REFUSED = {
    "not_utf8": [b'{"prompt": "\xff"}', '{"prompt": "a"}'.encode("utf-16")],
    "malformed_json": [b"", b"{", b'{"a":1,}', b'{"a":1} {}', b'\xef\xbb\xbf{"a":1}', b"prompt=a",
                       b'{"a":' + b"[" * 10**5, b'{"a":' + b"9" * 5000 + b"}"],
    "not_an_object": [b"[]", b'"{}"', b" 1 ", b"null"],
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSED)
def test_a_body_that_is_no_json_object(reason):
    for data in REFUSED[reason]:
        with pytest.raises(NotPredicted, match=reason):
            parsed(data)


def test_prompts_of_a_completion():
    assert read({"prompt": "a", "model": "m"}).prompts == ("a",)
    found = read({"prompt": ["a", "bb"], "n": 3, "max_tokens": 9}, chat=False, history=False)
    assert (found.prompts, found.n, found.max_tokens) == (("a", "bb"), 6, 9)
    assert read({"prompt": "a", "best_of": 4}).n == 4


@pytest.mark.parametrize(
    "prompt, reason",
    [(None, "no_text"), ([], "no_text"), ([1, 2], "token_ids"), ([[1], [2]], "token_ids"),
     (["a", 1], "no_text"), ({}, "no_text"), (["a"] * (MAX_PROMPTS + 1), "many_prompts")],
)  # fmt: skip
def test_prompts_without_text(prompt, reason):
    with pytest.raises(NotPredicted, match=reason):
        read({"prompt": prompt})


@pytest.mark.parametrize("messages", [None, [], "a", ["a"], [{"role": "system", "content": "a"}]])
def test_conversations_without_a_user(messages):
    with pytest.raises(NotPredicted, match="no_text"):
        read({"messages": messages}, chat=True, history=True)


@given(st.lists(st.text(max_size=9), min_size=1, max_size=7))
def test_a_conversation_reads_as_it_does_in_training(said):
    """Whatever alternates between user and assistant is what ``Texts.text`` makes of it."""
    prompts, answers = said[::2], said[1::2]
    messages = [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(said)]
    messages.insert(0, {"role": "system", "content": "Be brief."})
    turn = np.arange(1, len(prompts) + 1)
    answers += [None] * (len(prompts) - len(answers))
    history = histories([0] * len(prompts), turn, prompts, answers)
    texts = Texts(prompts, np.ones(len(prompts)), prompts, turn, history)
    for turn_only in (True, False):
        found = read({"messages": messages}, chat=True, history=not turn_only)
        assert found.prompts == (texts.text(turn_only)[-1],)


def test_pictures_and_tools_of_a_conversation_are_left_out():
    parts = [{"type": "text", "text": "What is"}, {"type": "image_url", "image_url": {"url": "u"}},
             {"type": "text", "text": "this?"}]  # fmt: skip
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": None},
                {"role": "tool", "content": "42"}]  # fmt: skip
    assert read({"messages": messages}, chat=True, history=True).prompts == ("What is\nthis?",)


@pytest.mark.parametrize(
    "members, chat, most",
    [({}, True, None), ({}, False, 16), ({"max_tokens": 5}, True, 5),
     ({"max_tokens": None}, False, None),
     ({"max_tokens": 5, "max_completion_tokens": 7}, True, 7), ({"max_tokens": "5"}, True, 5),
     ({"max_tokens": [5]}, True, None), ({"max_tokens": 0}, False, None)],
)  # fmt: skip
def test_the_most_that_a_client_allows(members, chat, most):
    assert max_tokens(members, CHAT if chat else COMPLETIONS) == most


LENIENT = [5, 5.0, "5", "5.0", " 5 ", "1_0", True, "5.5", "abc", [5], 0, -1, "1e", None]
TRUE = [True, 1, "true", "yes", "on", "t", "1"]
READ = """
import json, sys
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
def read(name, value):
    try:
        return getattr(CompletionRequest(prompt="a", model="m", **{name: value}), name)
    except ValueError:
        return None
for name, value in json.load(sys.stdin):
    print(json.dumps(read(name, value)))
"""


@vllm_engine.needed
def test_numbers_and_truths_are_read_as_vllm_reads_them():
    given = [("n", each) for each in LENIENT] + [("ignore_eos", each) for each in [*TRUE, *NO[1:]]]
    done = subprocess.run([python(), "-c", READ], input=json.dumps(given), capture_output=True,
                          text=True)  # fmt: skip
    theirs = [json.loads(line) for line in done.stdout.splitlines()]
    n = len(LENIENT)
    assert [answers({"n": each}) for each in LENIENT] == [max(each or 1, 1) for each in theirs[:n]]
    assert theirs[n:] == [True] * len(TRUE) + [False] * (len(NO) - 1)


@pytest.mark.parametrize(
    ("members", "limit", "least"),
    [({}, 9, 0), ({"min_tokens": 7}, 9, 7), ({"min_tokens": "7"}, None, 7),
     ({"ignore_eos": 1, "min_tokens": 7}, 9, 9), ({"ignore_eos": "yes"}, None, 4096),
     ({"ignore_eos": False}, 9, 0), ({"ignore_eos": "off", "min_tokens": -1}, 9, 0)],
)  # fmt: skip
def test_the_least_that_a_client_insists_on(members, limit, least):
    assert least_tokens(members, limit) == least


SAID = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
        {"role": "user", "content": [{"type": "input_text", "text": "c"}]}]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "route", "prompts", "most"),
    [({"input": "a"}, RESPONSES, ("a",), None),
     ({"input": SAID, "max_output_tokens": 7, "max_tokens": 3}, RESPONSES, ("c",), 7),
     ({"messages": SAID, "max_tokens": 9, "max_output_tokens": 3}, MESSAGES, ("c",), 9)],
)  # fmt: skip
def test_requests_of_the_other_two_routes(body, route, prompts, most):
    found = completion_request(body | {"model": "m"}, route, history=False)
    assert (found.prompts, found.max_tokens, found.model, found.n) == (prompts, most, "m", 1)


@pytest.mark.parametrize("given", [None, 3, [], [{"type": "function_call_output"}], [["a"]]])
def test_input_without_a_user(given):
    with pytest.raises(NotPredicted, match="no_text"):
        completion_request({"input": given}, RESPONSES, history=False)


@pytest.mark.parametrize(
    "body, tokens",
    [
        ({}, None), ({"tools": []}, None), ({"tools": [{"type": "function"}]}, 100),
        ({"chat_template_kwargs": {"enable_thinking": True}, "tools": [1]}, 4096),
        ({"chat_template_kwargs": {"thinking": False}}, 100),
        ({"chat_template_kwargs": "x", "thinking": {"type": "enabled"}}, 4096),
        ({"thinking": {"type": "disabled"}}, 100), ({"reasoning_effort": "low"}, 4096),
        ({"reasoning_effort": "none"}, 100), ({"reasoning_effort": 3, "thinking": 1}, None),
    ],
)  # fmt: skip
def test_without_a_text_metadata_say_how_long(body, tokens):
    """llm-d's rule; what it does not know is left to the recent median."""
    assert by_metadata(body) == tokens
