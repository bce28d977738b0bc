"""The baselines: what they promise, and that what they compute is what the textbook says."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import spearmanr

from commands import refused, ssjf
from shared_data import shared_data
from ssjf.errors import InputError
from ssjf.proxy import io as folder
from ssjf.proxy.base import LEVELS, TrainingRows
from ssjf.proxy.baselines import LEAST_PROMPTS, RIDGE, VOCABULARY, sizes_of, terms
from ssjf.proxy.io import read_spec
from ssjf.workload.texts import load_texts, split_of

NAMES = ("tfidf-ridge", "prompt-length", "constant")
every = pytest.mark.parametrize("name", NAMES)
ODD = {
    "empty": "",
    "1 MB": "a list of words " * 2**16,
    "one long word": "x" * 2**20,
    "Chinese": "请用中文写一篇关于机器学习的短文。",
    "emoji": "👩‍👩‍👧‍👦🇨🇳🙂" * 9,
    "lone surrogates": "a \ud800 b \udfff",
    "white space": " \t\n\r\u2003\u00a0\n\n ",
}


def rows(n=800, seed=0):
    """Answers grow with what is asked for, and with the size of the prompt, which follows it."""
    rng = np.random.default_rng(seed)
    asked = rng.integers(0, 4, n)
    words = np.array(["brief", "short", "long", "endless"])[asked]
    prompts = [
        f"Write a {word} text{' please' * 3 * a}" for word, a in zip(words, asked, strict=True)
    ]
    logs = 2.0 + asked + rng.normal(0, 0.3, n)
    part = np.arange(n) % 10
    return TrainingRows(
        prompts, logs[:, None], logs[:, None] + rng.normal(0, 0.2, (n, 2)), part < 6,
        (part == 6) | (part == 7),
    )  # fmt: skip


def trained(name, given=None, **config):
    kind = folder.KINDS[name]
    return kind.train(given or rows(), kind.config(**config))


@pytest.fixture(scope="module")
def proxies():
    return {name: trained(name) for name in NAMES}


# What all of them promise


@every
@pytest.mark.parametrize("prompt", ODD.values(), ids=ODD)
def test_any_prompt_is_predicted(proxies, name, prompt):
    found = proxies[name].predict([prompt])
    assert found.quantiles.shape == (1, len(LEVELS)) and found.levels == LEVELS
    assert np.isfinite(found.tokens).all() and found.tokens[0] >= 1
    assert (np.diff(found.quantiles) >= 0).all() and found.quantiles.min() >= 1


@every
def test_one_prompt_at_a_time_or_all_at_once(proxies, name):
    some = [*ODD.values(), *rows(20).prompts]
    together = proxies[name].predict(some)
    assert together.tokens.tolist() == [proxies[name].predict([p]).tokens[0] for p in some]
    assert proxies[name].predict([]).quantiles.shape == (0, len(LEVELS))


@every
def test_a_saved_proxy_predicts_the_same(proxies, name, tmp_path):
    again = folder.load(folder.save(tmp_path / "out", name, proxies[name], {}))
    some = [*ODD.values(), *rows(50).prompts]
    assert np.array_equal(again.predict(some).tokens, proxies[name].predict(some).tokens)
    assert np.array_equal(again.predict(some).quantiles, proxies[name].predict(some).quantiles)


@every
def test_rows_of_neither_mask_influence_nothing(proxies, name):
    given = rows()
    other = ~(given.train | given.validation)
    prompts = ["zzz" if out else p for p, out in zip(given.prompts, other, strict=True)]
    wrong = np.where(other[:, None], 99, given.targets)
    changed = TrainingRows(prompts, wrong, wrong + given.draws * 0, given.train, given.validation)
    same = TrainingRows(given.prompts, given.targets, given.targets + given.draws * 0, given.train,
                        given.validation)  # fmt: skip
    one, two = trained(name, changed).arrays(), trained(name, same).arrays()
    assert all(np.array_equal(one[key], two[key]) for key in one)


@every
def test_the_intervals_cover_what_they_say(name):
    held = rows(4000, seed=1)
    found = trained(name, rows(4000)).predict(held.prompts)
    below = (np.exp(held.draws[:, :1]) <= found.quantiles).mean(axis=0)
    assert np.allclose(below, LEVELS, atol=0.05)


@every
def test_a_length_that_is_missing_is_left_out(name):
    given = rows()
    gone = np.where(np.arange(800)[:, None] % 4, given.targets, np.nan)
    found = trained(name, TrainingRows(given.prompts, gone, gone, given.train, given.validation))
    assert np.isfinite(found.predict(given.prompts[:9]).quantiles).all()


# The constant


def test_the_constant_is_the_geometric_mean_of_the_training_rows(proxies):
    given = rows()
    tokens = proxies["constant"].predict(given.prompts).tokens
    assert tokens == pytest.approx(np.exp(given.targets[given.train, 0].mean()))
    assert np.ptp(tokens) == 0


# The prompt's size


def test_size_predicts_where_it_tells(proxies):
    held = rows(500, seed=2)
    assert (
        spearmanr(proxies["prompt-length"].predict(held.prompts).tokens, held.targets[:, 0])[0]
        > 0.9
    )


@pytest.mark.parametrize("sign", [1, -1])
def test_size_predicts_in_either_direction(sign):
    given = rows()
    turned = TrainingRows(given.prompts, 5 + sign * given.targets, 5 + sign * given.draws,
                          given.train, given.validation)  # fmt: skip
    logs = trained("prompt-length", turned).arrays()["logs"]
    assert (sign * np.diff(logs) >= 0).all() and np.ptp(logs) > 2


def test_size_is_the_number_of_characters():
    assert np.expm1(sizes_of(["", "写写", "abc"])) == pytest.approx([0, 2, 3])


# Tf-idf and ridge


def test_the_terms_of_a_prompt():
    assert terms("It's HE") == ["it", "'", "s", "he", "it '", "' s", "s he"]
    assert terms("") == [] and len(terms("word " * 10**6)) < 10_000


def test_serving_predicts_as_scikit_learn(proxies):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    given = rows()
    known = np.flatnonzero(given.train)
    vectorizer = TfidfVectorizer(analyzer=terms, min_df=LEAST_PROMPTS, sublinear_tf=True)
    tfidf = vectorizer.fit_transform([given.prompts[i] for i in known])
    model = Ridge(alpha=RIDGE, solver="cholesky")  # not the solver that is used
    model.fit(tfidf.toarray(), given.targets[known, 0])
    prompts = [*given.prompts, "Is it? Is it a text: long long", "", "写 a 写 a 写"]
    expected = model.predict(vectorizer.transform(prompts).toarray())
    proxy = proxies["tfidf-ridge"]
    assert proxy.vocabulary == vectorizer.get_feature_names_out().tolist()
    assert proxy.predicted_logs(prompts) == pytest.approx(expected, abs=1e-3)


def test_prompts_without_a_common_word_are_predicted_alike():
    given = rows()
    alone = TrainingRows([chr(0x4E00 + i) for i in range(800)], given.targets, given.draws,
                         given.train, given.validation)  # fmt: skip
    found = trained("tfidf-ridge", alone)
    mean = np.exp(given.targets[given.train, 0].mean())
    assert found.vocabulary == [] and found.predict(["a", "写"]).tokens == pytest.approx(mean)


# On disk


@pytest.fixture
def saved(proxies, tmp_path):
    return folder.save(tmp_path / "mine", "tfidf-ridge", proxies["tfidf-ridge"], {})


def write(where, content):
    """Another vocabulary, with a card that fits it."""
    (where / VOCABULARY).write_bytes(content)
    card = json.loads((where / "proxy.json").read_text())
    card["files"] = {VOCABULARY: hashlib.sha256(content).hexdigest()}
    (where / "proxy.json").write_text(json.dumps(card))


@pytest.mark.parametrize("content", [b"[", b"[[1]]", b"7"])
def test_a_wrong_vocabulary_is_refused_in_one_sentence(saved, tmp_path, content):
    write(saved, content)
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n')
    message = refused("predict", "--proxy", saved, "--input", tmp_path / "p.jsonl")
    assert str(saved) in message and "does not hold a tfidf-ridge proxy" in message


def test_an_edited_vocabulary_is_refused(saved):
    (saved / VOCABULARY).write_bytes(b"[]")
    with pytest.raises(InputError, match=r"vocabulary\.json is missing or is not the file"):
        folder.load(saved)


def test_a_vocabulary_may_be_missing_from_the_card_only_with_the_file(saved):
    (saved / VOCABULARY).unlink()
    card = json.loads((saved / "proxy.json").read_text()) | {"files": {}}
    (saved / "proxy.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match="does not hold a tfidf-ridge proxy"):
        folder.load(saved)


# By the command line


@every
def test_each_trains_and_predicts_by_the_command_line(name, tmp_path):
    texts, out = tmp_path / "texts.jsonl", tmp_path / "out"
    given = rows(600)
    lines = [
        json.dumps({"prompt": f"{i} {prompt}", "output_tokens": round(float(np.exp(log)))})
        for i, (prompt, log) in enumerate(zip(given.prompts, given.targets[:, 0], strict=True))
    ]
    texts.write_text("\n".join(lines))
    done = ssjf("train", "--proxy", name, "--data", texts, "--out", out)
    assert done.exit_code == 0, done.output
    assert folder.card(out)["kind"] == name
    asked = tmp_path / "p.jsonl"
    prompts = [p for p in ODD.values() if "\ud800" not in p]
    asked.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in prompts))
    predicted = ssjf("predict", "--proxy", out, "--input", asked).stdout.split()
    assert len(predicted) == len(prompts) and min(map(float, predicted)) >= 1


def test_predicting_needs_neither_scikit_learn_nor_scipy(saved):
    code = (
        "import sys; from ssjf.proxy import io as folder; "
        f"print(folder.load({str(saved)!r}).predict(['a']).tokens[0]); "
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"sklearn", "scipy", "torch", "pandas"} & {*done.stdout.split()}


@pytest.mark.parametrize("name", NAMES)
def test_the_specs_are_for_one_s_own_log(name):
    spec = read_spec(name)
    assert (spec.kind, spec.labels, spec.also) == (name, ("output_tokens",), ())


# On real prompts


def test_tfidf_on_vicuna_s_greedy_lengths(monkeypatch):
    """What the shared baseline of the data set scores (0.74), give or take the validation rows."""
    monkeypatch.setenv("SSJF_DATA", str(shared_data("alpaca-vicuna")))
    texts = load_texts("alpaca-vicuna", label="vicuna7b_len_t00")
    split = np.array([split_of(prompt) for prompt in texts.first_prompts])
    logs = np.log(texts.output_tokens)[:, None]
    given = TrainingRows(texts.prompts, logs, logs, split == "train", split == "val")
    tokens = {
        name: trained(name, given).predict(texts.split("test").prompts).tokens for name in NAMES
    }
    truth = texts.output_tokens[split == "test"]
    assert spearmanr(tokens["tfidf-ridge"], truth)[0] == pytest.approx(0.735, abs=0.01)
    assert 0 < spearmanr(tokens["prompt-length"], truth)[0] < 0.3
    assert np.ptp(tokens["constant"]) == 0
