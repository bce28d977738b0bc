"""Texts with the lengths of their answers: formats, tokenizers, splits, what is refused.

What needs the real files is skipped where they are not: see ``real_data``.
"""

import dataclasses
import functools
import json
import re
import sys
import types

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from shared_data import shared_data
from ssjf.errors import InputError
from ssjf.workload import catalogue, datasets
from ssjf.workload.catalogue import TEXTS
from ssjf.workload.texts import (
    SPLITS,
    Texts,
    check_trainable,
    load_texts,
    normalised,
    prompt_hash,
    split_of,
)
from ssjf.workload.tokenizers import count_tokens

CHAT = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello you"},
    {"role": "user", "content": "More"},
    {"role": "assistant", "content": "As you like it"},
]
LMSYS = [
    {"conversation_id": "a", "model": "vicuna-13b", "conversation": CHAT, "turn": 2},
    {"conversation_id": "b", "model": "koala-13b", "conversation": CHAT[:3], "turn": 1},
]


def said(*texts, start="human"):
    speakers = ["human", "gpt"] if start == "human" else ["gpt", "human"]
    return [{"from": speakers[i % 2], "value": text} for i, text in enumerate(texts)]


def write(path, data):
    """A file of bytes, of text, or of rows by its suffix (a .json of rows is an array)."""
    if isinstance(data, bytes):
        path.write_bytes(data)
    elif isinstance(data, str):
        path.write_text(data, encoding="utf-8")
    elif path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(data), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in data))
    else:
        path.write_text(json.dumps(data))
    return path


# The noun


def test_single_turns_need_only_prompts_and_lengths():
    texts = Texts(["a", "b"], [3, 4])
    assert texts.first_prompts == ["a", "b"] and texts.history == ["", ""]
    assert texts.turn.tolist() == [1, 1] and texts.output_tokens.dtype == np.int64
    assert texts.text(turn_only=True) == texts.text(turn_only=False) == ["a", "b"]


def test_columns_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="its 2 rows"):
        Texts(["a", "b"], [1])
    with pytest.raises(ValueError, match="its 2 rows"):
        Texts(["a", "b"], [1, 2], extra={"t": np.zeros(3)})


@pytest.mark.parametrize("rows", [np.array([2, 0]), np.array([True, False, True]), slice(1, 3)])
def test_take_takes_every_column_alike(rows):
    texts = Texts(["a", "b", "c"], [1, 2, 3], ["x", "y", "z"], [4, 5, 6], ["h", "i", "j"],
                  ["m", "n", "o"], {"t": np.array([7.0, 8, 9])})  # fmt: skip
    taken = texts.take(rows)
    at = np.arange(3)[rows]
    assert taken.prompts == [texts.prompts[i] for i in at]
    assert taken.first_prompts == [texts.first_prompts[i] for i in at]
    assert taken.history == [texts.history[i] for i in at]
    assert taken.model == [texts.model[i] for i in at]
    assert taken.output_tokens.tolist() == (at + 1).tolist()
    assert (
        taken.turn.tolist() == (at + 4).tolist() and taken.extra["t"].tolist() == (at + 7).tolist()
    )


def test_the_splits_share_out_all_rows_by_their_first_prompts():
    n = 300
    texts = Texts(
        [f"later {i}" for i in range(n)], np.ones(n), [f"first {i // 3}" for i in range(n)]
    )
    parts = {name: texts.split(name) for name in SPLITS}
    assert sum(map(len, parts.values())) == n and all(map(len, parts.values()))
    for name, part in parts.items():
        assert {split_of(prompt) for prompt in part.first_prompts} == {name}
    with pytest.raises(InputError, match="unknown split 'dev'; known: test, train, val"):
        texts.split("dev")


def test_distinct_looks_at_the_history_too():
    texts = Texts(["Go on", "go  on", "Go on"], [1, 2, 3], history=["", "", "[USER]: x"])
    assert texts.distinct().output_tokens.tolist() == [1, 3]


def test_labelled_drops_the_rows_without_the_label():
    texts = Texts(["a", "b", "c"], [1, 2, 3], extra={"other": np.array([9, np.nan, 7])})
    labelled = texts.labelled("other")
    assert labelled.prompts == ["a", "c"] and labelled.output_tokens.tolist() == [9, 7]
    assert texts.output_tokens.tolist() == [1, 2, 3]
    with pytest.raises(InputError, match="unknown label 'oter'; known: other"):
        texts.labelled("oter")


@pytest.mark.parametrize("value", [0, -3, 1.5, np.inf])
def test_a_label_that_is_no_length_is_refused(value):
    texts = Texts(["a", "b"], [1, 2], extra={"other": np.array([1, value])})
    with pytest.raises(InputError, match=r"row 2, column other: .* is not a whole number of at l"):
        texts.labelled("other")


def test_one_distinct_prompt_cannot_be_trained_on():
    check_trainable(Texts(["a", "b"], [1, 2]))
    with pytest.raises(InputError, match="1 distinct prompts among 3 rows; training needs two"):
        check_trainable(Texts(["a", "A", " a "], [1, 2, 3]))
    with pytest.raises(InputError, match="0 distinct prompts among 0 rows"):
        check_trainable(Texts([], []))
    with pytest.raises(InputError, match="row 2: an output length of 0 tokens is not a whole num"):
        check_trainable(Texts(["a", "b"], [1, 0]))


# Formats


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json"])
def test_lmsys(tmp_path, suffix):
    texts = load_texts(write(tmp_path / f"x{suffix}", LMSYS), "whitespace")
    assert texts.prompts == ["Hi", "More", "Hi"] and texts.first_prompts == ["Hi", "Hi", "Hi"]
    assert texts.turn.tolist() == [1, 2, 1] and texts.output_tokens.tolist() == [2, 4, 2]
    assert texts.model == ["vicuna-13b", "vicuna-13b", "koala-13b"]
    assert texts.history == ["", "[USER]: Hi\n[ASSISTANT]: Hello you", ""]
    assert texts.text(turn_only=False)[1] == "[USER]: Hi\n[ASSISTANT]: Hello you\n[USER]: More"


def test_sharegpt_pieces_are_in_the_split_of_their_conversation(tmp_path):
    rows = [
        {"id": "x_1", "conversations": said("So?", "It goes", "And", "on", start="gpt")},
        {"id": "x_0", "conversations": said("Start", "Yes", "Then", "now what")},
        {"id": "y_0", "conversations": said("Other", "one", "unanswered")},
    ]
    texts = load_texts(write(tmp_path / "x.json", rows), "whitespace")
    assert texts.prompts == ["It goes", "Start", "Then", "Other"]
    assert texts.first_prompts == ["Start", "Start", "Start", "Other"]
    assert texts.output_tokens.tolist() == [1, 1, 2, 1] and texts.model is None


def test_conversations_of_one_id_do_not_mix(tmp_path):
    rows = [{"id": "x", "conversations": said(p, "ok", "more", "ok")} for p in ("a", "b")]
    texts = load_texts(write(tmp_path / "x.json", rows), "whitespace")
    assert texts.history == ["", "[USER]: a\n[ASSISTANT]: ok", "", "[USER]: b\n[ASSISTANT]: ok"]


def test_alpaca(tmp_path):
    rows = [
        {"instruction": "Add", "input": "1 2", "output": "3"},
        {"instruction": "Name a sea", "input": "", "output": "the Baltic"},
        {"instruction": "Say nothing", "input": "", "output": ""},
    ]
    texts = load_texts(write(tmp_path / "x.json", rows), "whitespace")
    assert texts.prompts == ["Add\n\n1 2", "Name a sea"]
    assert texts.output_tokens.tolist() == [1, 2] and texts.model is None


def test_alpaca_eval_and_halueval(tmp_path):
    rows = [{"instruction": "a", "output": "b c", "generator": "gpt4", "dataset": "koala"}]
    assert load_texts(write(tmp_path / "a.json", rows), "whitespace").model == ["gpt4"]
    rows = [{"ID": "1", "user_query": "a", "chatgpt_response": "b c"}]
    # Published as .json, but one object a line.
    path = write(tmp_path / "h.json", json.dumps(rows[0]) + "\n")
    assert load_texts(path, "whitespace").output_tokens.tolist() == [2]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".json", ".parquet"])
def test_tables_of_lengths(tmp_path, suffix):
    rows = [
        {"prompt": "a, b", "output_tokens": 5, "other": 7, "topic": "x"},
        {"prompt": "c", "output_tokens": 6, "other": None, "topic": "y"},
    ]
    text = 'prompt,output_tokens,other,topic\n"a, b",5,7,x\nc,6,,y\n'
    path = write(tmp_path / f"x{suffix}", text if suffix == ".csv" else rows)
    texts = load_texts(path)
    assert texts.prompts == ["a, b", "c"] and texts.output_tokens.tolist() == [5, 6]
    assert texts.model is None and set(texts.extra) == {"other"}
    assert texts.extra["other"][0] == 7 and np.isnan(texts.extra["other"][1])
    assert load_texts(path, label="other").output_tokens.tolist() == [7]
    assert load_texts(path, label="output_tokens").output_tokens.tolist() == [5, 6]


def test_a_label_needs_neither_counts_nor_answers(tmp_path):
    path = write(tmp_path / "x.csv", "prompt,vicuna\na,5\nb,6\n")
    assert load_texts(path, label="vicuna").output_tokens.tolist() == [5, 6]


def test_a_tokenizer_asked_for_counts_again(tmp_path):
    path = write(tmp_path / "x.csv", "prompt,response,output_tokens\na,one two,99\n")
    assert load_texts(path).output_tokens.tolist() == [99]
    assert load_texts(path, "whitespace").output_tokens.tolist() == [2]


def test_turns_of_a_table_are_put_in_order_and_models_kept_apart(tmp_path):
    rows = [
        dict(
            conversation_id="c",
            turn=turn,
            model=model,
            prompt=f"p{turn}",
            response=f"{model}{turn}",
        )
        for model in "AB"
        for turn in (2, 1)
    ]
    texts = load_texts(write(tmp_path / "x.jsonl", rows), "bytes")
    assert texts.first_prompts == ["p1"] * 4
    assert texts.history == ["[USER]: p1\n[ASSISTANT]: A1", "", "[USER]: p1\n[ASSISTANT]: B1", ""]


def test_an_empty_answer_is_left_out_unless_another_label_is_there(tmp_path):
    text = "prompt,response,output_tokens,other\na,,0,4\nb,yes,1,5\n"
    path = write(tmp_path / "x.csv", text)
    assert load_texts(path).prompts == ["b"]
    assert load_texts(path, label="other").prompts == ["a", "b"]


# Bad input, each with its sentence

JSONL = '{"prompt": "a", "output_tokens": 1}\n'


@pytest.mark.parametrize(
    ("name", "data", "options", "message"),
    [
        ("x.csv", "prompt,output_tokens\na,1\n ,2\n", {}, "row 2, column prompt: ' ' is empty; "),
        ("x.jsonl", JSONL + '{"output_tokens": 2}', {}, "row 2, column prompt: None is not text"),
        ("x.json", [{"instruction": "", "output": "b"}], {}, "row 1, column instruction: '' is em"),
        ("x.csv", "id,body\n1,a\n", {}, "no column with prompts; found: id, body; needed: prompt"),
        ("x.csv", "prompt,answer\na,b\n", {}, "neither output_tokens nor response is there"),
        ("x.csv", "prompt,response\na,b\n", {}, "name the tokenizer that counts them: cl100k_base"),
        ("x.csv", "prompt,output_tokens\na,1\n", {"tokenizer": "bytes"}, "no column response for"),
        ("x.csv", "prompt,output_tokens\na,1\nb,\n", {}, "row 2, column output_tokens: '' is not"),
        ("x.csv", "prompt,output_tokens\na,0\n", {}, "row 1, column output_tokens: '0' is not"),
        ("x.csv", "prompt,output_tokens\na,-4\n", {}, "column output_tokens: '-4' is not a whole"),
        ("x.csv", "prompt,response,output_tokens\na,b,0\n", {}, "column output_tokens: '0' is not"),
        ("x.csv", "prompt,response\na,\n", {"tokenizer": "bytes"}, "no row has an answer"),
        ("x.csv", "prompt,t\na,\n", {"label": "t"}, "no row has a value of t"),
        ("x.csv", "prompt,t\na,1\nb,0\n", {"label": "t"}, "row 2, column t: 0 is not a whole numb"),
        ("x.csv", "prompt,t\na,1\nb,x\n", {"label": "t"}, "row 2, column t: 'x' is not a number"),
        ("x.csv", "prompt,t\na,1\n", {"label": "u"}, "unknown label 'u'; known: t"),
        ("x.csv", "prompt,output_tokens,turn\na,1,0\n", {}, "row 1, column turn: '0' is not a"),
        ("x.csv", "", {}, "the file is empty"),
        ("x.json", "[]", {}, "the table has no rows"),
        ("x.json", " \n", {}, "the table has no rows"),
        ("x.json", '[{"prompt": "a"', {}, "not valid JSON"),
        ("x.json", "[1]", {}, "row 1: not a JSON object"),
        ("x.json", [{"conversation": "a: b"}], {}, "row 1, column conversation: not a list"),
        ("x.json", [{"conversations": [{"who": "x"}]}], {}, "row 1, column conversations: not a l"),
        ("x.json", [{"conversations": said("a", 5)}], {}, "content of every message must be text"),
        ("x.json", [{"conversations": said("a")}], {}, "no conversation has a user's message that"),
        ("x.txt", "a", {}, "known: .csv, .json, .jsonl, .parquet"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path, name, data, options, message):
    path = write(tmp_path / name, data)
    with pytest.raises(InputError, match=re.escape(str(path))) as error:
        load_texts(path, **options)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_unknown_names_list_the_known_ones(tmp_path):
    path = write(tmp_path / "x.csv", "prompt,response\na,b\n")
    with pytest.raises(
        InputError, match="unknown tokenizer 'words'; known: bytes, cl100k_base, hf:"
    ):
        load_texts(path, "words")
    with pytest.raises(
        InputError, match="unknown text data set 'alpaca'; known: alpaca-eval, alpa"
    ):
        load_texts("alpaca")
    with pytest.raises(InputError, match=r"nowhere\.csv: there is no such file"):
        load_texts(tmp_path / "nowhere.csv")


# Tokenizers


def package(monkeypatch, name, **members):
    monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(**members))


def fails(*_, **__):
    raise ConnectionError("no network")


def test_rough_counts_need_no_package():
    assert count_tokens(["a b\nc", "", "é"], "whitespace").tolist() == [3, 0, 1]
    counts = count_tokens(["a b", "", "é"], "bytes")
    assert counts.tolist() == [3, 0, 2] and counts.dtype == np.int64


def test_every_text_is_counted_in_order_over_the_batches():
    assert count_tokens(["x" * i for i in range(2500)], "bytes").tolist() == [*range(2500)]


def test_tiktoken_counts_special_tokens_as_text(monkeypatch):
    def encoding(name):
        assert name == "cl100k_base"
        return types.SimpleNamespace(encode_ordinary_batch=lambda texts: [*map(str.split, texts)])

    package(monkeypatch, "tiktoken", get_encoding=encoding)
    assert count_tokens(["a b", ""], "cl100k_base").tolist() == [2, 0]


def test_transformers_add_no_special_tokens(monkeypatch):
    def tokenizer(texts, add_special_tokens):
        assert not add_special_tokens
        return {"input_ids": [*map(str.split, texts)]}

    auto = types.SimpleNamespace(from_pretrained={"org/name": tokenizer}.__getitem__)
    package(monkeypatch, "transformers", AutoTokenizer=auto)
    assert count_tokens(["a b", ""], "hf:org/name").tolist() == [2, 0]
    with pytest.raises(InputError, match="transformers finds no tokenizer in other"):
        count_tokens(["a"], "hf:other")


@pytest.mark.parametrize(("name", "needs"), [("cl100k_base", "tiktoken"), ("hf:x", "transformers")])
def test_a_missing_package_says_what_to_install(monkeypatch, name, needs):
    monkeypatch.setitem(sys.modules, needs, None)
    with pytest.raises(
        InputError, match=f"{name} needs the package {needs}; run pip install {needs}"
    ):
        count_tokens(["a"], name)


def test_tiktoken_without_a_network_names_its_cache(monkeypatch):
    package(monkeypatch, "tiktoken", get_encoding=fails)
    with pytest.raises(InputError, match=r"rank file \(ConnectionError\); .* TIKTOKEN_CACHE_DIR"):
        count_tokens(["a"], "cl100k_base")


# Data sets by name


def test_every_text_set_has_a_licence_and_says_how_to_get_it():
    for each in TEXTS.values():
        assert each.licence and each.note and each.get and each.url.startswith("https://")
        assert each.forms and each.kind == "texts"
        for source in (form.sources[0] for form in each.forms):
            assert source.sha256 is None or re.fullmatch("[0-9a-f]{64}", source.sha256)


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_set_that_is_not_here_says_how_to_get_it(name, home, tmp_path, monkeypatch):
    monkeypatch.setenv("SSJF_DATA", str(tmp_path / "data"))
    with pytest.raises(InputError, match=f"text data set {name} is not here") as error:
        load_texts(name)
    each = TEXTS[name]
    names = [form.sources[0].name for form in each.forms]
    for part in (str(home), str(tmp_path / "data"), *names, each.get, each.url, each.licence):
        assert part in str(error.value)


def test_a_published_file_is_found_but_not_another_under_a_known_name(home):
    home.mkdir(parents=True)
    path = write(home / "code_alpaca_2k.json", [{"instruction": "a", "output": "b"}])
    assert catalogue.find("codealpaca") == [path]
    assert len(load_texts("codealpaca", "bytes")) == 1
    write(home / "codealpaca_2k.parquet", [{"prompt": "a", "output_tokens": 1}])
    with pytest.raises(
        InputError, match=r"codealpaca_2k\.parquet is not .* its sha256 must be a7f6"
    ):
        load_texts("codealpaca")


@pytest.mark.parametrize("name", sorted({*TEXTS} - {"halueval", "codealpaca"}))
def test_texts_without_one_published_file_are_not_downloaded(name, home):
    each = TEXTS[name]
    for function in (datasets.get, catalogue.find):
        with pytest.raises(InputError, match=f"text data set {name} is not here") as error:
            function(name)
        assert each.downloads == () and "ssjf data get" not in str(error.value)
    with pytest.raises(InputError, match="has no file to download; ") as error:
        datasets.get(name, force=True)
    assert all(part in str(error.value) for part in (each.get, each.url, each.licence))


def test_texts_without_one_published_file_are_where_they_were_put(home):
    home.mkdir(parents=True)
    path = write(home / "lmsys-chat-1m.jsonl", LMSYS)
    assert datasets.get("lmsys-chat-1m") == catalogue.find("lmsys-chat-1m") == [path]
    assert {each["name"]: each["path"] for each in datasets.describe_all()}["lmsys-chat-1m"] == path


@pytest.mark.parametrize("name", ["halueval", "codealpaca"])
def test_texts_published_as_one_file_are_downloaded_from_a_pinned_url(
    name, home, served, monkeypatch
):
    each = TEXTS[name]
    assert re.match(r"https://raw\.githubusercontent\.com/.+/[0-9a-f]{40}/", each.url)
    with pytest.raises(InputError, match=f"run `ssjf data get {name}`, or download "):
        catalogue.find(name)
    folder, url = served
    (published,) = each.downloads
    source = dataclasses.replace(published, url=f"{url}/{published.name}")
    other = dataclasses.replace(each, forms=(each.forms[0], catalogue.Form((source,))))
    monkeypatch.setitem(TEXTS, name, other)
    with pytest.raises(InputError, match=f"cannot download .* as {published.name}"):
        datasets.get(name)
    write(folder / published.name, [{"instruction": "a", "output": "b"}])
    assert datasets.get(name) == catalogue.find(name) == [home / published.name]
    assert load_texts(name, "bytes").prompts == ["a"]


def test_one_of_two_equal_files_is_read(home):
    for below in ("a", "b"):
        (home / below).mkdir(parents=True)
        write(home / below / "code_alpaca_2k.json", [{"instruction": "a", "output": "b"}])
    assert catalogue.find("codealpaca") == [home / "a" / "code_alpaca_2k.json"]


def test_the_parts_of_lmsys_are_read_as_one(home):
    folder = home / "lmsys-chat-1m"
    folder.mkdir(parents=True)
    for i, row in enumerate(LMSYS):
        write(folder / f"train-0000{i}-of-00002-abc.parquet", [row])
    texts = load_texts("lmsys-chat-1m", "whitespace")
    assert texts.prompts == ["Hi", "More", "Hi"] and texts.turn.tolist() == [1, 2, 1]
    assert texts.model == ["vicuna-13b", "vicuna-13b", "koala-13b"]


# The real files

# What stands for an address or a number; a prompt with one keeps the split it had before.
REDACTED = re.compile(r"@example\.com|555-000-0000")


@pytest.fixture(scope="module")
def real_data():
    return shared_data("alpaca-vicuna")


@functools.cache
def read(path):
    return load_texts(path)


def texts_files(folder):
    return sorted([*folder.glob("conversations/*"), *folder.glob("multi_llm/*responses*")])


def test_the_real_files_have_their_published_hashes_and_splits(real_data):
    for path in sorted(real_data.glob("multi_llm/*prompts*")):
        rows = parquet.read_table(path).to_pylist()
        other = [row for row in rows if prompt_hash(row["prompt"]) != row["prompt_hash"]]
        assert all(REDACTED.search(row["prompt"]) for row in other) and len(other) <= 1
        assert all(split_of(r["prompt"]) == r["split"] for r in rows if r not in other)


def test_the_splits_of_the_real_texts_are_the_published_ones(real_data):
    for path in texts_files(real_data):
        texts = read(path)
        columns = parquet.read_table(path, columns=["split", "output_tokens"])
        published = columns["split"].to_numpy()[columns["output_tokens"].to_numpy() > 0]
        wrong = np.flatnonzero(texts.splits() != published)
        assert all(REDACTED.search(texts.first_prompts[i]) for i in wrong), path
        assert len(wrong) < 0.0025 * len(texts), path


def test_no_prompt_is_in_two_splits_over_all_real_files(real_data):
    found = {}
    for path in texts_files(real_data):
        texts = read(path)
        for prompt, split in zip(texts.first_prompts, texts.splits(), strict=True):
            found.setdefault(normalised(prompt), set()).add(split)
    assert len(found) > 50_000 and all(len(splits) == 1 for splits in found.values())


def test_alpaca_with_the_lengths_of_vicuna(real_data):
    texts = read(real_data / "conversations" / "alpaca_davinci_vicuna.parquet")
    # Of the 19 empty answers of text-davinci-003, Vicuna's are there.
    assert len(texts) == 51_972 - 19 and set(texts.model) == {"text-davinci-003"}
    labelled = texts.labelled("vicuna7b_len_t00")
    assert len(labelled) == 20_000 - 19 and len(labelled.split("test")) == pytest.approx(
        2082, abs=5
    )
    check_trainable(labelled)
    levels = [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1]
    found = np.quantile(labelled.output_tokens, levels, method="inverted_cdf")
    assert found.tolist() == pytest.approx([8, 16, 33, 103, 174, 278, 495, 514], abs=1)


def test_real_conversations_come_with_their_turns_and_history(real_data, monkeypatch):
    monkeypatch.setenv("SSJF_DATA", str(real_data))
    texts = load_texts("moss")
    first = texts.turn == 1
    assert len(texts) == 3323 and first.sum() == 620
    assert all((history == "") == one for history, one in zip(texts.history, first, strict=True))
    assert len(texts.distinct()) == 3323  # the whole history is distinct
    second = int(np.flatnonzero(texts.turn == 2)[0])
    assert texts.history[second].startswith(f"[USER]: {texts.first_prompts[second]}\n[ASSISTANT]: ")
