"""``ssjf predict``: files and standard input in, one prediction a line out, with the builtin proxy.

What needs the real texts is skipped where they are not: see ``tested``.
"""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from pyarrow import parquet
from scipy.stats import spearmanr

from commands import one_sentence, process, refused, ssjf
from shared_data import shared_data
from ssjf.cli import main
from ssjf.proxy import io as folder
from ssjf.proxy.base import LEVELS
from ssjf.workload.texts import load_texts

PROMPTS = {
    "empty": "",
    "plain": 'Write a "long" essay, in three parts,\nabout the sea.',
    "1 MB": "and so on, " * 100_000,
    "Chinese": "请用中文写一篇关于机器学习的短文。",
    "emoji": "👩‍👩‍👧‍👦 🙂?",
    "code": "```python\ndef f(x):\n\treturn x ** 2\n```\nWhat does it do?",
    "white space": " \t ",
}


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows(prompts=None):
    asked = PROMPTS.values() if prompts is None else prompts
    return [{"id": i, "prompt": prompt} for i, prompt in enumerate(asked)]


def predicted(*arguments, text=None):
    """The objects that ``ssjf predict --json`` prints."""
    command = ["predict", "--json", *map(str, arguments)]
    done = CliRunner().invoke(main, command, input=text, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def tokens(prompts):
    return folder.load("builtin").predict(prompts).tokens


@pytest.fixture(scope="module")
def expected():
    """What the proxy itself says, rounded as it is printed."""
    found = folder.load("builtin").predict([*PROMPTS.values()])
    return [
        {
            "predicted_tokens": round(float(length), 1),
            "quantiles": {
                f"{level:g}": round(float(value), 1)
                for level, value in zip(LEVELS, quantiles, strict=True)
            },
        }
        for length, quantiles in zip(found.tokens, found.quantiles, strict=True)
    ]


# Input of every kind


def test_jsonl(tmp_path, expected):
    assert predicted("--input", jsonl(tmp_path / "p.jsonl", rows())) == expected


def test_csv(tmp_path, expected):
    with (tmp_path / "p.CSV").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["id", "prompt"])
        writer.writeheader()
        writer.writerows(rows())
    assert predicted("--input", tmp_path / "p.CSV") == expected


def test_parquet(tmp_path, expected):
    parquet.write_table(pa.Table.from_pylist(rows()), tmp_path / "p.parquet")
    assert predicted("--input", tmp_path / "p.parquet") == expected


@pytest.mark.parametrize("start", ["", "\ufeff", "\n \n"])
def test_standard_input(start, expected):
    text = start + "\r\n".join(map(json.dumps, rows()))
    assert predicted("--input", "-", text=text) == expected


def test_standard_input_is_utf_8_in_every_locale(expected):
    text = json.dumps({"prompt": PROMPTS["Chinese"]}, ensure_ascii=False).encode()
    command = [sys.executable, "-m", "ssjf", "predict", "--json", "--input", "-"]
    env = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(command, input=text, env=env, capture_output=True, check=True)
    assert json.loads(done.stdout) == expected[[*PROMPTS].index("Chinese")]


def test_lone_surrogates_and_zero_bytes_are_prompts_too():
    text = "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in ("a \ud800", "a \0 b"))
    found = predicted("--input", "-", text=text)
    assert len(found) == 2 and all(row["predicted_tokens"] >= 1 for row in found)


# Output


def test_every_object_has_a_length_and_rising_quantiles(expected):
    for row in expected:
        assert list(row) == ["predicted_tokens", "quantiles"] and row["predicted_tokens"] >= 1
        assert [*map(float, row["quantiles"])] == [*LEVELS]
        values = [*row["quantiles"].values()]
        assert values == sorted(values) and values[0] >= 1 and np.isfinite(values).all()


def test_one_number_a_line_without_json(tmp_path, expected):
    done = ssjf("predict", "--input", jsonl(tmp_path / "p.jsonl", rows()))
    assert [float(line) for line in done.stdout.splitlines()] == pytest.approx(
        [row["predicted_tokens"] for row in expected]
    )


def test_one_prompt_or_many_in_input_order(tmp_path):
    """More prompts than one batch holds; the others of its batch do not touch a prediction."""
    many = [f"Write {n} words about {n % 7} ships" for n in range(600)]
    found = predicted("--input", jsonl(tmp_path / "p.jsonl", rows(many)))
    for at in (0, 255, 256, 599):
        assert predicted("--input", jsonl(tmp_path / "1.jsonl", rows([many[at]]))) == [found[at]]
    assert found == predicted("--input", jsonl(tmp_path / "2.jsonl", rows(many[::-1])))[::-1]
    assert len({row["predicted_tokens"] for row in found}) > 10


def test_predicting_needs_no_trainer():
    code = (
        "import sys; from ssjf.cli import main\n"
        "try: main(['predict', '--input', '-'])\n"
        "except SystemExit as end: assert not end.code\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], input='{"prompt": "a"}\n', text=True,
                          capture_output=True, check=True)  # fmt: skip
    length, loaded = done.stdout.splitlines()
    assert float(length) >= 1
    assert not {"torch", "lightgbm", "sklearn", "transformers", "pandas"} & {*loaded.split()}


def test_a_closed_pipe_is_no_error(tmp_path):
    """As ``| head -1`` does: the reader goes away while there is much to print."""
    source = jsonl(tmp_path / "p.jsonl", rows(["Write a list"] * 3000))
    command = [sys.executable, "-m", "ssjf", "predict", "--json", "--input", str(source)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout.readline().startswith(b'{"predicted_tokens": ')
        running.stdout.close()
        assert running.stderr.read() == b""


# What is refused


BAD = {
    "no column": ("p.jsonl", b'{"text": "a"}\n', "column 'prompt' is missing; found: text"),
    "broken line": ("p.jsonl", b'{"prompt": "a"}\n\n{"prompt"\n', "line 3: not valid JSON"),
    "no object": ("p.jsonl", b'"a"\n', "line 1: not a JSON object"),
    "a number": ("p.jsonl", b'{"prompt": "a"}\n{"prompt": 5}\n', "row 2, column prompt: 5 is not"),
    "absent": ("p.jsonl", b'{"prompt": "a"}\n{"id": 5}\n', "row 2, column prompt: None is"),
    "a list": ("p.jsonl", b'{"prompt": ["a"]}\n', "row 1, column prompt: ['a'] is not text"),
    "not UTF-8": ("p.jsonl", b'{"prompt": "\xff"}\n', "the file is not text in UTF-8"),
    "zero bytes": ("p.csv", b"prompt\n\0\n", "the file is not text (it holds zero bytes)"),
    "open quote": ("p.csv", b'prompt\n"a\n', "line 2: not valid CSV"),
    "empty jsonl": ("p.jsonl", b"", "the file is empty"),
    "only a header": ("p.csv", b"prompt\n", "the table has no rows; at least one is needed"),
    "empty parquet": ("p.parquet", b"", "the file is empty"),
    "suffix": ("p.txt", b"a\n", "unknown suffix of file"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "data", "why"), BAD.values(), ids=BAD)
def test_bad_files_are_refused_in_one_sentence(tmp_path, name, data, why):
    (tmp_path / name).write_bytes(data)
    message = refused("predict", "--input", tmp_path / name)
    assert str(tmp_path / name) in message and why in message


def test_parquet_of_other_values(tmp_path):
    path = tmp_path / "p.parquet"
    broken = pa.array([b"\xff"], pa.binary()).view(pa.string())
    for column, why in [
        (pa.array([1, 2]), "row 1, column prompt: 1 is not text"),
        (pa.array(["a", None]), "row 2, column prompt: None is not text"),
        (pa.array([["a"]]), "row 1, column prompt: ['a'] is not text"),
        (broken, "a column of text is not in UTF-8"),
    ]:
        parquet.write_table(pa.table({"prompt": column}), path)
        assert why in refused("predict", "--input", path)


def test_what_is_not_there(tmp_path):
    missing = tmp_path / "none.jsonl"
    assert refused("predict", "--input", missing) == f"{missing}: there is no such file"
    (tmp_path / "folder.csv").mkdir()
    assert "there is no such file" in refused("predict", "--input", tmp_path / "folder.csv")
    source = jsonl(tmp_path / "p.jsonl", rows())
    assert "no proxy: it has no proxy.json" in refused(
        "predict", "--proxy", tmp_path, "--input", source
    )
    assert "Missing option '--input'" in refused("predict")


LINES = {
    "nothing": (b"", "standard input has no rows; at least one is needed"),
    "not UTF-8": (b'{"prompt": "\xff"}\n', "standard input is not text in UTF-8"),
    "broken": (b'{"prompt": "a"}\n\n{"prompt"', "standard input, line 3: not valid JSON"),
    "deep": (b"[" * 10**5, "standard input, line 1: not valid JSON"),
    "a list": (b'["a"]\n', 'standard input, line 1: not a JSON object with one key per'),
    "another key": (b'{"text": "a"}', "standard input, row 1, column prompt: None is not text"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "why"), LINES.values(), ids=LINES)
def test_bad_standard_input_is_refused_in_one_sentence(data, why):
    done = CliRunner().invoke(main, ["predict", "--input", "-"], input=data, catch_exceptions=False)
    assert why in one_sentence(done) and done.stdout == ""


def test_refusing_in_a_process_of_its_own(tmp_path):
    done = process("predict", "--input", tmp_path / "none.jsonl")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("ssjf: ") and done.stderr.count("\n") == 1


# How good the builtin proxy is


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("Is the sky blue? Answer yes or no.", "Write an essay about why the sky is blue."),
        ("Name one planet.", "Make a list of all planets and describe each of them in detail."),
        ("Classify this sentence as positive or negative.\n\nI like it.",
         "Write a blog article about positive and negative reviews."),
        ("What is the capital of France?", "Explain the history of France step by step."),
        ("Give the past tense of 'go'.", "Write a story about a girl who learns the past tense."),
    ],
)  # fmt: skip
def test_essays_are_longer_than_answers_of_a_word(short, long):
    first, second = tokens([short, long])
    assert 2 * first < second


@pytest.fixture(scope="module")
def tested():
    """(card, true lengths, prediction) of the test split that the builtin proxy never saw."""
    data = shared_data("alpaca-vicuna")
    card = folder.card(folder.folder_of("builtin"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSJF_DATA", str(data))
        texts = load_texts(card["data"].split("+")[0])
    truth = texts.extra[card["labels"][0]]
    rows = np.flatnonzero((texts.splits() == "test") & ~np.isnan(truth))
    return card, truth[rows], folder.load("builtin").predict([texts.prompts[i] for i in rows])


def test_the_card_says_what_the_weights_do(tested):
    card, truth, found = tested
    assert card["rows"]["test"] == len(truth)
    spearman = spearmanr(truth, found.tokens)[0]
    assert spearman >= 0.75 and spearman == pytest.approx(card["test"]["spearman"][0], abs=1e-3)
    covered = within(truth, found).mean()
    assert 0.77 <= covered <= 0.83
    assert covered == pytest.approx(card["test"]["coverage_80"][0], abs=1e-3)
    assert abs(found.tokens - truth).mean() == pytest.approx(card["test"]["mae"][0], abs=0.05)


def test_the_distribution_holds_whatever_is_predicted(tested):
    """80 % of the answers within the interval in each fifth of the predictions, and each
    quantile above its share of the answers."""
    _, truth, found = tested
    fifth = np.argsort(np.argsort(found.tokens)) * 5 // len(truth)
    covered = within(truth, found)
    assert all(0.7 <= covered[fifth == k].mean() <= 0.9 for k in range(5))
    below = (truth[:, None] <= found.quantiles).mean(axis=0)
    assert np.allclose(below, LEVELS, atol=0.03)


def within(truth, found):
    low, high = (found.quantiles[:, LEVELS.index(p)] for p in (0.1, 0.9))
    return (low <= truth) & (truth <= high)
