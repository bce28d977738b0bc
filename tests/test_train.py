"""``ssjf train``: from a file of texts to a folder that predicts, or one sentence and no folder."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import spearmanr

from commands import contents, refused, ssjf
from ssjf.errors import InputError
from ssjf.experiments import grid
from ssjf.experiments import train as training
from ssjf.proxy.io import card, load, read_spec
from ssjf.workload.texts import split_of

SPEC = """
kind = "light"
{}
[config]
buckets = 1024
dimensions = 4
most_trees = 60
learning_rate = 0.1
"""


def answered(n=600):
    """Rows whose answers are about as long as they were asked to be; two draws, another LLM's."""
    rng = np.random.default_rng(0)
    rows = []
    for i, asked in enumerate(rng.integers(5, 500, n).tolist()):
        first, second = (max(1, round(asked * noise)) for noise in rng.uniform(0.8, 1.2, 2))
        rows.append({"prompt": f"Write {asked} words about topic {i % 9}", "output_tokens": first,
                     "draw": second, "other": None if i % 3 else 2 * asked})  # fmt: skip
    return rows


def data(tmp_path, rows, name="texts.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def spec(tmp_path, keys="", text=None, name="small.toml"):
    path = tmp_path / name
    path.write_text(SPEC.format(keys) if text is None else text)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(what was printed, folder, rows) of a training by the command line."""
    folder = tmp_path_factory.mktemp("trained")
    rows, keys = answered(), 'labels = ["output_tokens", "draw"]\nalso = ["other"]'
    done = ssjf("train", "--proxy", spec(folder, keys), "--data", data(folder, rows),
                "--out", folder / "deep" / "out")  # fmt: skip
    assert done.exit_code == 0, done.output
    return done.stdout, folder / "deep" / "out", rows


# What a training gives


def test_training_predicts_what_was_planted(trained):
    _, out, rows = trained
    held = [row for row in rows if split_of(row["prompt"]) == "test"]
    predicted = load(out).predict([row["prompt"] for row in held])
    truth = np.array([row["output_tokens"] for row in held])
    assert spearmanr(predicted.tokens, truth)[0] > 0.8
    assert card(out)["test"]["spearman"][0] == pytest.approx(
        spearmanr(predicted.tokens, truth)[0], abs=1e-4
    )


def test_the_card_says_how_it_was_made(trained):
    printed, out, rows = trained
    told = json.loads((out / "proxy.json").read_text(), parse_constant=pytest.fail)
    splits = [split_of(row["prompt"]) for row in rows]
    assert told["rows"] == {name: splits.count(name) for name in ("train", "val", "test")}
    assert told["labels"] == ["output_tokens", "draw"] and told["also"] == ["other"]
    assert told["config"]["buckets"] == 1024 and told["config"]["seed"] == 0
    for value, *interval in told["test"].values():
        assert not interval or interval[0] <= value <= interval[1]
    assert {"mae", "spearman", "spearman_of_mean", "coverage_80"} <= told["test"].keys()
    assert printed.startswith(f"{out}: trained in ") and "  spearman: 0." in printed
    assert f" on {told['rows']['train']} prompts" in printed
    assert os.listdir(out.parent) == ["out"]


def test_the_folder_is_one_that_predict_takes(trained, tmp_path):
    _, out, rows = trained
    source = data(tmp_path, rows[:5])
    lengths = ssjf("predict", "--proxy", out, "--input", source).stdout.split()
    expected = load(out).predict([row["prompt"] for row in rows[:5]]).tokens
    assert [*map(float, lengths)] == pytest.approx(expected, abs=0.051)


def test_the_same_data_and_seed_give_the_same_weights(trained, tmp_path):
    _, out, rows = trained
    keys = 'labels = ["output_tokens", "draw"]\nalso = ["other"]'
    again = tmp_path / "again"
    training.train(read_spec(str(spec(tmp_path, keys))), str(data(tmp_path, rows)), again)
    weights = "weights.safetensors"
    assert (again / weights).read_bytes() == (out / weights).read_bytes()
    assert card(again)["data_hash"] == card(out)["data_hash"]


def test_the_test_split_changes_the_judgement_only(trained, tmp_path):
    """Other lengths of the test split: the same weights, other numbers on the card."""
    _, out, rows = trained
    keys = 'labels = ["output_tokens", "draw"]\nalso = ["other"]'
    swapped = [
        row | {"output_tokens": 7 + i, "draw": 9, "other": 1}
        if split_of(row["prompt"]) == "test" else row
        for i, row in enumerate(rows)
    ]  # fmt: skip
    other = tmp_path / "other"
    told = training.train(read_spec(str(spec(tmp_path, keys))), str(data(tmp_path, swapped)), other)
    weights = "weights.safetensors"
    assert (other / weights).read_bytes() == (out / weights).read_bytes()
    assert told["test"]["spearman"] != card(out)["test"]["spearman"]


def test_labels_of_a_file_without_output_tokens(tmp_path):
    rows = [{"prompt": row["prompt"], "mine": row["draw"]} for row in answered()]
    asked = read_spec(str(spec(tmp_path, 'labels = ["mine"]')))
    told = training.train(asked, str(data(tmp_path, rows)), tmp_path / "out")
    assert told["test"]["spearman"][0] > 0.8


def test_a_test_split_of_equal_lengths_has_no_rank(tmp_path):
    """What cannot be judged is null on the card: JSON has no NaN."""
    rows = [
        row | {"output_tokens": 50} if split_of(row["prompt"]) == "test" else row
        for row in answered()
    ]
    asked = read_spec(str(spec(tmp_path)))
    training.train(asked, str(data(tmp_path, rows)), tmp_path / "out")
    told = json.loads((tmp_path / "out" / "proxy.json").read_text(), parse_constant=pytest.fail)
    assert told["test"]["spearman"] == [None] * 3 and told["test"]["mae"][0] > 0


# What is refused


def refuses(tmp_path, rows=None, text=None, keys="", proxy=None, out="out"):
    """The sentence of a training that is refused, having written nothing."""
    proxy = proxy or spec(tmp_path, keys, text)
    source = data(tmp_path, answered(150) if rows is None else rows)
    before = contents(tmp_path)
    message = refused("train", "--proxy", proxy, "--data", source, "--out", tmp_path / out)
    assert contents(tmp_path) == before and not (tmp_path / "out").is_dir()
    return message


SPECS = {
    "no kind": ("", "unknown kind of proxy in", "None; known: constant, encoder"),
    "kind": ('kind = "bert"', "unknown kind of proxy in", "'bert'; known: constant, encoder"),
    "key": ('kind = "light"\nspeed = 3', "unknown key of", "known: also, config, elsewhere, k"),
    "config key": ('kind = "light"\n[config]\ntrees = 3', "unknown key of config in", "most_trees"),
    "config": ('kind = "light"\nconfig = 3', "config is 3; it must be a table", ""),
    "negative": ('kind = "light"\n[config]\nleaves = -1', "leaves is -1; it must be at least", ""),
    "text": ('kind = "light"\n[config]\nridge = "a"', "ridge is 'a'; it must be a number", ""),
    "true": ('kind = "light"\n[config]\nthreads = true', "threads is True; it must be a whole", ""),
    "buckets": ('kind = "light"\n[config]\nbuckets = 1000', "it must be a power of two", ""),
    "labels": ('kind = "light"\nlabels = "a"', "labels is 'a'; it must be a valid tuple", ""),
    "no TOML": ("kind =", "is not TOML: ", "small.toml"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "why", "where"), SPECS.values(), ids=SPECS)
def test_a_wrong_spec_is_refused_in_one_sentence(tmp_path, text, why, where):
    message = refuses(tmp_path, text=text)
    assert why in message and where in message and str(tmp_path / "small.toml") in message


def test_a_spec_that_is_not_there(tmp_path):
    message = refuses(tmp_path, proxy="heavy")
    assert message.startswith("unknown proxy spec 'heavy'; known: ") and "light" in message
    assert "none.toml does not exist" in refuses(tmp_path, proxy=tmp_path / "none.toml")


def test_an_unknown_label_lists_the_known(tmp_path):
    message = refuses(tmp_path, keys='labels = ["output_tokens", "length"]')
    assert message.startswith("unknown label 'length'; known: ") and "draw, other" in message
    assert "unknown label 'length'" in refuses(tmp_path, keys='also = ["length"]')
    assert "unknown label 'vicuna7b_len_t00'" in refuses(tmp_path, proxy="light-vicuna")


def test_an_existing_folder_is_kept(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "note").write_text("mine")
    assert "is there already; choose a folder" in refuses(tmp_path, out="there")
    assert os.listdir(tmp_path / "there") == ["note"]


def test_nobody_trains_for_a_folder_that_cannot_be(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "fit", lambda *_: pytest.fail("trained"))
    (tmp_path / "file").write_text("")
    assert "file is not a folder" in refuses(tmp_path, out="file/out")


def changed(**columns):
    return [row | columns if i == 20 else row for i, row in enumerate(answered(150))]


DATA = {
    "one prompt": ([{"prompt": "Hi", "output_tokens": i + 1} for i in range(99)],
                   "1 distinct prompts among 99 rows; training needs two"),
    "few rows": (answered(30), "labelled rows in its train split; training needs at least 50"),
    "few to judge": ([row for row in answered() if split_of(row["prompt"]) == "train"],
                     "0 labelled rows in its val split; training needs at least 10"),
    "length 0": (changed(output_tokens=0), "row 21, column output_tokens: 0 is not a whole number"),
    "no length": (changed(output_tokens=None), "row 21, column output_tokens: None is not a"),
    "equal lengths": ([row | {"output_tokens": 9} for row in answered()],
                      "every output_tokens is the same; there is nothing to learn"),
    "empty prompt": (changed(prompt=" "), "row 21, column prompt: ' ' is empty"),
    "no lengths": ([{"prompt": row["prompt"]} for row in answered()],
                   "neither output_tokens nor response is there; one is needed"),
    "no rows": ([], "the file is empty"),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "why"), DATA.values(), ids=DATA)
def test_data_that_teach_nothing_are_refused_in_one_sentence(tmp_path, rows, why):
    assert why in refuses(tmp_path, rows)


def test_a_length_of_any_column_is_a_whole_number_above_0(tmp_path):
    message = refuses(tmp_path, changed(draw=2.5), keys='labels = ["output_tokens", "draw"]')
    assert "row 21, column draw: 2.5 is not a whole number of at least 1" in message


def test_another_length_that_is_nearly_never_known(tmp_path):
    rows = [row | {"other": 5 if i < 9 else None} for i, row in enumerate(answered())]
    message = refuses(tmp_path, rows, keys='also = ["other"]')
    assert "rows with other in its train split; training needs at least 50" in message


def test_data_that_are_not_there(tmp_path):
    base = ["train", "--proxy", spec(tmp_path), "--out", tmp_path / "out", "--data"]
    assert "there is no such file" in refused(*base, tmp_path / "none.jsonl")
    assert refused(*base, "lmsys").startswith("unknown text data set 'lmsys'; known: ")
    assert "Missing option '--data'" in refused("train", "--out", tmp_path / "out")


def test_without_its_packages_training_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(ModuleNotFoundError):
        import sklearn.linear_model  # noqa: F401
    message = refuses(tmp_path, answered())
    assert message == "this needs the package sklearn.linear_model; run pip install 'ssjf[train]'"


# Killed


def test_a_kill_at_the_worst_moment_leaves_no_folder(tmp_path):
    """All is computed and written but for the last step: nothing of it lies in the folder."""
    source, small, out = data(tmp_path, answered()), spec(tmp_path), tmp_path / "made" / "out"
    code = (
        "import os, signal, sys; from ssjf.cli import main\n"
        "os.rename = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "main(sys.argv[1:])"
    )
    arguments = ["train", "--proxy", str(small), "--data", str(source), "--out", str(out)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True)
    assert done.returncode == -signal.SIGKILL and not out.exists()
    assert [*out.parent.glob(".tmp-*")], "what it had written is still there"
    with pytest.raises(InputError, match="is no proxy"):
        load(out)
    assert ssjf(*arguments).exit_code == 0
    assert load(out).predict(["Write 9 words"]).tokens[0] >= 1
    assert os.listdir(out.parent) == ["out"]


# Mixtures of data sets

POEMS = ("haiku", "ballad", "epic")  # from short to long
OF_LABEL = 'labels = ["label"]\nelsewhere = true'


def labelled():
    """Distinct prompts with labels."""
    rows = {row["prompt"]: row | {"label": row["output_tokens"]} for row in answered()}
    return [*rows.values()]


def mixture(folder):
    """``A+B``: as many words as asked for, with labels; and poems of three kinds, one model's
    answers a hundred times as long as the other's."""
    poems = [
        {"prompt": f"Matter {i}: a {POEMS[i % 3]}", "model": f"{times}",
         "output_tokens": times * (i % 3 + 1) ** 2}
        for i in range(300)
        for times in (10, 1000)
    ]  # fmt: skip
    return f"{data(folder, labelled(), 'a.jsonl')}+{data(folder, poems, 'b.jsonl')}"


def test_a_mixture_has_each_prompt_once_on_the_scale_of_the_first_sets_labels(tmp_path):
    name = mixture(tmp_path)
    texts = training.load(read_spec(str(spec(tmp_path, OF_LABEL))), name)
    second = np.array(texts.model) == name.split("+")[1]
    assert second.sum() == 300 and len(texts) == 300 + len(labelled())
    label = training.lengths(texts, "label")
    assert np.array_equal(np.isnan(label), second)
    train, logs = texts.splits() == "train", np.log(texts.output_tokens)
    scale = np.log(label[train & ~second])
    for part in (logs[second & train], logs[~second & train]):
        assert np.allclose([part.mean(), part.std()], [scale.mean(), scale.std()], atol=0.02)
    kinds = [POEMS.index(prompt.split()[-1]) for prompt in np.array(texts.prompts)[second]]
    assert spearmanr(kinds, texts.output_tokens[second])[0] > 0.999


def test_a_mixture_teaches_what_only_the_set_without_labels_has(tmp_path):
    name, spreads = mixture(tmp_path), []
    asked = [f"Matter 7: a {poem}" for poem in POEMS]
    for i, keys in enumerate((OF_LABEL, OF_LABEL.replace("true", "false"))):
        out = tmp_path / str(i)
        done = training.train(read_spec(str(spec(tmp_path, keys))), name, out)
        tested = sum(split_of(row["prompt"]) == "test" for row in labelled())
        assert done["rows"]["test"] == tested, "judged by labels alone"
        spreads.append(np.diff(np.log(load(out).predict(asked).tokens)))
    assert spreads[0].min() > 3 * np.abs(spreads[1]).max()


def test_a_mixture_that_cannot_be_is_refused_in_one_sentence(tmp_path):
    constant = f'kind = "constant"\n{OF_LABEL}\n'
    assert "elsewhere is for light proxies alone" in refuses(tmp_path, text=constant)
    name = f"{mixture(tmp_path)}+none.jsonl"
    message = refused("train", "--proxy", spec(tmp_path, OF_LABEL), "--data", name,
                      "--out", tmp_path / "out")  # fmt: skip
    assert "none.jsonl: there is no such file" in message


# What a mixture was worth, by the committed runs


def test_what_is_shipped_orders_every_data_set_and_on_average_as_well_as_its_own_proxy():
    logs = grid.rows("mixtures").assign(log=lambda each: np.log(each["output_tokens"]))
    prompts = logs.groupby(["series", "workload", "prompt_hash", "conversation", "turn"])
    means = prompts[["log", "predicted_tokens"]].mean().groupby(["series", "workload"])
    orders = means.apply(lambda each: spearmanr(*each.to_numpy().T)[0]).unstack("series")
    assert len(orders) == 6 and orders["shipped-mixture"].min() > 0.3
    assert orders["shipped-mixture"].mean() > orders["own"].mean()
    unseen = orders["left-out"] > 0
    assert unseen.index[~unseen].tolist() == ["moss"], "half Chinese, as no other set is"
