"""Bodies: the one inserted member apart, every byte is as the client sent it."""

import json

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving_tools import CHAT, COMPLETIONS, echo, serving, wrapped
from ssjf.serving.bodies import Body, Unpredicted
from ssjf.serving.openai import MOST_PROMPTS, asked, limit
from ssjf.workload.text_formats import histories
from ssjf.workload.texts import Texts

WHITE = st.text(" \t\n\r", max_size=3)
NUMBERS = st.sampled_from(
    ["1e5", "-0", "0.10", "12345678901234567890123", "1E+2", "3.0e-2", "NaN", "-Infinity"]
)
STRINGS = st.text(max_size=8).flatmap(
    lambda text: st.sampled_from([json.dumps(text), json.dumps(text, ensure_ascii=False)])
) | st.sampled_from([r'"\ud800"', r'"\ud83d\ude00"', r'"\/\u0041"', r'"\"priority\":1}"'])
NAMES = STRINGS | st.sampled_from(['"prompt"', '"model"', '"priority "', '"max_tokens"'])


def listed(parts, opening, closing, white):
    return f"{opening}{white}{f'{white},{white}'.join(parts)}{white}{closing}"


def objects(values, names, unique=True):
    """Texts of JSON objects."""

    def written(members, white):
        return listed([f"{k}{white}:{white}{v}" for k, v in members], "{", "}", white)

    by = (lambda member: json.loads(member[0])) if unique else None
    members = st.lists(st.tuples(names, values), max_size=4, unique_by=by)
    return st.builds(written, members, WHITE)


VALUES = st.recursive(
    NUMBERS | STRINGS | st.sampled_from(["null", "true", "false"]),
    lambda inner: (
        objects(inner, NAMES | st.just('"priority"'))
        | st.builds(listed, st.lists(inner, max_size=3), st.just("["), st.just("]"), WHITE)
    ),
    max_leaves=8,
)
OUTER = st.builds("{}{}{}".format, WHITE, objects(VALUES, NAMES), WHITE)


def pairs(data):
    """What JSON says, with the order of members and every number as it is written."""
    return json.loads(
        data, object_pairs_hook=tuple, parse_float=str, parse_int=str, parse_constant=str
    )


@settings(max_examples=300, deadline=None)
@given(OUTER, st.integers(-(2**53), 2**53))
def test_a_priority_is_inserted_and_nothing_else_changes(text, priority):
    data = text.encode()
    found = Body.of(data).with_priority(priority)
    assert pairs(found) == (*pairs(data), ("priority", str(priority)))
    comma = b"," if pairs(data) else b""
    inserted = b'%s"priority":%d' % (comma, priority)
    before, _, after = found.rpartition(inserted)
    assert before + after == data


@settings(max_examples=300, deadline=None)
@given(OUTER, VALUES, st.integers(-(2**53), 2**53), WHITE)
def test_a_priority_is_replaced_and_nothing_else_changes(text, old, priority, white):
    members = len(pairs(text))
    before = f"{white},{white}" if members else ""
    head, _, tail = text.rpartition("}")
    whole = f'{head}{before}"priority"{white}:{white}{old}{white}}}{tail}'
    expected = f'{head}{before}"priority"{white}:{white}{priority}{white}}}{tail}'
    assert Body.of(whole.encode()).with_priority(priority) == expected.encode()


@settings(max_examples=200, deadline=None)
@given(OUTER)
def test_a_body_is_read_as_json_reads_it(text):
    body = Body.of(text.encode())
    assert repr(body.members) == repr(json.loads(text))  # NaN is not equal to itself
    for name, (start, end) in body.spans.items():
        assert repr(json.loads(text[start:end])) == repr(body.members[name])


@settings(max_examples=200, deadline=None)
@given(OUTER, st.integers(0, 200), st.sampled_from([*'{}[]",:x1 \n\\', "", "\ufeff"]))
def test_what_json_refuses_is_refused(text, at, put):
    broken = (text[:at] + put + text[at + 1 :]).encode()
    try:
        read, twice = json.loads(broken.decode("utf-8")), False
        twice = isinstance(read, dict) and len(pairs(broken)) != len(read)
    except ValueError:
        with pytest.raises(Unpredicted, match="malformed_json"):
            Body.of(broken)
        return
    if twice or not isinstance(read, dict):
        with pytest.raises(Unpredicted, match="duplicate_key" if twice else "not_an_object"):
            Body.of(broken)
    else:
        assert repr(Body.of(broken).members) == repr(read)


REFUSED = {
    "not_utf8": [b'{"prompt": "\xff"}', '{"prompt": "a"}'.encode("utf-16")],
    "malformed_json": [
        b"", b"{", b"}", b'{"a":1', b'{"a":1,}', b'{"a":1}}', b'{"a":1} {}', b"{1:2}", b'{"a" 1}',
        b'{"a":1 "b":2}', b"{'a':1}", b'\xef\xbb\xbf{"a":1}', b'{"a":"\n"}',
        b'{"a":' + b"[" * 10**5, b'{"a":' + b"9" * 5000 + b"}", b"prompt=a", b"\xe2\x80\xa8{}",
    ],
    "not_an_object": [b"[]", b'"{}"', b" 1 ", b"null"],
    "duplicate_key": [b'{"a":1,"a":1}', b'{"priority":1,"priority":2}', b'{"a":1,"\\u0061":2}'],
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSED)
def test_a_body_that_cannot_be_written_to(reason):
    for data in REFUSED[reason]:
        with pytest.raises(Unpredicted) as why:
            Body.of(data)
        assert why.value.reason == reason, data[:50]


# Over HTTP


@pytest.fixture(scope="module")
def client():
    with (
        serving(wrapped(echo, deadline_ms=60_000)) as address,
        httpx.Client(base_url=address) as found,
    ):
        yield found


@settings(max_examples=150, deadline=None)
@given(OUTER, st.sampled_from([COMPLETIONS, CHAT, f"/root{COMPLETIONS}"]))
def test_documents_pass_a_server_with_one_member_more(client, text, path):
    found = client.post(path, content=text.encode())
    assert found.headers["x-length"] == str(len(found.content))
    sent, got = pairs(text), pairs(found.content)
    assert got[:-1] == sent and got[-1][0] == "priority" and int(got[-1][1]) > 0
    end = text.rindex("}")
    assert found.text.startswith(text[:end]) and found.text.endswith(text[end:])
    assert len(found.text) - len(text) == len(f'"priority":{got[-1][1]}') + bool(sent)


def test_a_body_without_a_length_is_written_to_as_well(client):
    parts = [b'{"prompt": ', b'"a', b'b"', b"}"]
    found = client.post(COMPLETIONS, content=iter(parts))
    assert found.json().keys() == {"prompt", "priority"} and found.headers["x-length"] == ""


# What is asked


def test_prompts_of_a_completion():
    assert asked({"prompt": "a", "model": "m"}, chat=False, history=False).texts == ("a",)
    found = asked({"prompt": ["a", "bb"], "n": 3, "max_tokens": 9}, chat=False, history=False)
    assert (found.texts, found.answers, found.limit) == (("a", "bb"), 6, 9)
    assert asked({"prompt": "a", "best_of": 4}, chat=False, history=False).answers == 4


@pytest.mark.parametrize(
    "prompt, reason",
    [(None, "no_text"), ([], "no_text"), ([1, 2], "token_ids"), ([[1], [2]], "token_ids"),
     (["a", 1], "no_text"), ({}, "no_text"), (["a"] * (MOST_PROMPTS + 1), "many_prompts")],
)  # fmt: skip
def test_prompts_without_text(prompt, reason):
    with pytest.raises(Unpredicted, match=reason):
        asked({"prompt": prompt}, chat=False, history=False)


@pytest.mark.parametrize("messages", [None, [], "a", ["a"], [{"role": "system", "content": "a"}]])
def test_conversations_without_a_user(messages):
    with pytest.raises(Unpredicted, match="no_text"):
        asked({"messages": messages}, chat=True, history=True)


@settings(max_examples=100, deadline=None)
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
        found = asked({"messages": messages}, chat=True, history=not turn_only)
        assert found.texts == (texts.text(turn_only)[-1],)


def test_pictures_and_tools_of_a_conversation_are_left_out():
    parts = [{"type": "text", "text": "What is"}, {"type": "image_url", "image_url": {"url": "u"}},
             {"type": "text", "text": "this?"}]  # fmt: skip
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": None},
                {"role": "tool", "content": "42"}]  # fmt: skip
    assert asked({"messages": messages}, chat=True, history=True).texts == ("What is\nthis?",)


@pytest.mark.parametrize(
    "members, chat, most",
    [({}, True, None), ({}, False, 16), ({"max_tokens": 5}, True, 5),
     ({"max_tokens": None}, False, None),
     ({"max_tokens": 5, "max_completion_tokens": 7}, True, 7), ({"max_tokens": "5"}, True, None),
     ({"max_tokens": True}, True, None), ({"max_tokens": 0}, False, None)],
)  # fmt: skip
def test_the_most_that_a_client_allows(members, chat, most):
    assert limit(members, chat) == most
