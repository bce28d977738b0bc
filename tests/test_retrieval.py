"""Retrieval: the data base of vectors, what its neighbours say, and what training promises."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.stats import spearmanr

import tiny_backbone
from commands import ssjf
from ssjf.config import validated
from ssjf.errors import InputError
from ssjf.proxy import io as folder
from ssjf.proxy.base import LEVELS, TrainingRows
from ssjf.proxy.retrieval import RetrievalConfig, RetrievalProxy, mapped, train

ODD = {
    "empty": "",
    "1 MB": "a list of words " * 2**16,
    "Chinese": "请用中文写一篇关于机器学习的短文。",
    "emoji": "👩‍👩‍👧‍👦🇨🇳🙂" * 9,
    "lone surrogates": "a \ud800 b \udfff",
    "zero bytes": "a\0b \0",
}
THINGS = ("sea", "moon", "code", "python", "poem", "list")
ASKS = {"write a short": 20, "explain why the": 80, "write a long": 300}


# The proxy


def changed(config, **options):
    return validated(RetrievalConfig, config.model_dump() | options)


def asked(n=400):
    """Prompts as long to answer as they are phrased, and two draws of each length."""
    rng = np.random.default_rng(6)
    asks = [[*ASKS][i] for i in rng.integers(0, 3, n)]
    prompts = [f"{ask} {rng.choice(THINGS)} {i} {rng.choice(THINGS)}" for i, ask in enumerate(asks)]
    logs = np.log([ASKS[ask] for ask in asks])[:, None] + rng.normal(0, 0.2, (n, 2))
    return prompts, logs


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return str(tiny_backbone.make(tmp_path_factory.mktemp("backbone") / "tiny"))


@pytest.fixture(scope="module")
def rows():
    prompts, logs = asked()
    part = np.arange(len(prompts)) % 10
    return TrainingRows(prompts, logs.mean(axis=1)[:, None], logs, part < 6, part // 2 == 3)


@pytest.fixture(scope="module")
def config(tiny):
    return RetrievalConfig(encoder=tiny, longest_tokens=32, dimensions=8, neighbours=9, epochs=4)


@pytest.fixture(scope="module")
def trained(rows, config):
    return train(rows, config)


def with_config(proxy, **changes):
    """The same proxy, otherwise configured."""
    return dataclasses.replace(proxy, config=changed(proxy.config, **changes))


def vectors_of(proxy, prompts):
    """The prompts in the space that is searched."""
    return mapped(proxy.encoder.vectors(prompts), proxy.map)


def nearest(proxy, prompts):
    """By brute force: cosines (n, k), falling, and logarithms of lengths (n, k, draws)."""
    cosines = vectors_of(proxy, prompts) @ proxy.vectors.T
    near = np.argsort(-cosines, axis=1)[:, : proxy.config.neighbours]
    return np.take_along_axis(cosines, near, axis=1).astype(np.float64), proxy.logs[near]


def said(proxy, prompts):
    """Average lengths of the neighbours, before anything is calibrated."""
    return np.exp(proxy.retrieved(vectors_of(proxy, prompts))[0])


def test_a_planted_rule_is_learned(trained, rows):
    held = ~(rows.train | rows.validation)
    predicted = trained.predict([p for p, test in zip(rows.prompts, held, strict=True) if test])
    assert spearmanr(predicted.tokens, rows.targets[held, 0])[0] > 0.8
    low, high = (predicted.quantiles[:, LEVELS.index(p)] for p in (0.1, 0.9))
    truth = np.exp(rows.draws[held])
    assert 0.6 < np.mean((low[:, None] <= truth) & (truth <= high[:, None])) < 0.97
    assert np.all(np.diff(predicted.quantiles, axis=1) >= 0)


def test_the_map_brings_alike_lengths_together(trained):
    """A map is taken only where it errs less on the validation rows than the one it began as."""
    errors = trained.training["map_errors"]
    assert errors[trained.training["map_epoch"]] == min(errors) < errors[0]
    assert trained.map.shape == (32, 8) and trained.vectors.shape[1] == 8


def test_weights_are_a_softmax_between_the_nearest_and_the_plain_mean(trained, rows):
    prompts = rows.prompts[-20:]
    near, logs = nearest(trained, prompts)
    assert near.shape == (20, 9) and logs.shape == (20, 9, 2)
    means = logs.astype(np.float64).mean(axis=2)
    weights = np.exp(near / 0.1) / np.exp(near / 0.1).sum(axis=1, keepdims=True)
    expected = {0.1: (weights * means).sum(axis=1), 1e-6: means[:, 0], 1e6: means.mean(axis=1)}
    for temperature, log in expected.items():
        found = said(with_config(trained, temperature=temperature), prompts)
        assert np.allclose(found, np.exp(log), rtol=1e-4)


def test_quantiles_before_calibration_are_those_of_the_neighbours(trained, rows):
    plain = with_config(trained, temperature=1e6)
    _, logs = nearest(plain, rows.prompts[:20])
    steps = np.sort(logs.reshape(20, -1).astype(np.float64), axis=1)
    expected = [np.quantile(row, LEVELS, method="inverted_cdf") for row in steps]
    _, levels = plain.retrieved(vectors_of(plain, rows.prompts[:20]))
    at = [np.searchsorted(row, level - 1e-9) for row, level in zip(steps, levels, strict=True)]
    exact = [np.searchsorted(row, level - 1e-9) for row, level in zip(steps, expected, strict=True)]
    assert np.abs(np.array(at) - exact).max() <= 1  # weights are equal but for a millionth


def test_a_length_that_is_not_known_counts_for_nothing(trained, rows):
    logs = trained.logs.copy()
    logs[:, 1] = np.nan
    one = dataclasses.replace(trained, logs=logs)
    alone = dataclasses.replace(trained, logs=logs[:, :1])
    prompts = rows.prompts[:20]
    for some, others in zip(*(each.retrieved(vectors_of(each, prompts)) for each in (one, alone)),
                            strict=True):  # fmt: skip
        assert np.allclose(some, others)


@pytest.mark.parametrize("prompt", ODD.values(), ids=ODD)
def test_any_prompt_is_predicted(trained, prompt):
    predicted = trained.predict([prompt])
    assert np.isfinite(predicted.tokens).all() and predicted.tokens >= 1
    assert np.all(np.diff(predicted.quantiles) >= 0) and predicted.quantiles.min() >= 1


def test_one_prompt_at_a_time_or_all_at_once(trained, rows):
    some = [*ODD.values(), *rows.prompts[:60]]
    together, alone = trained.predict(some), [trained.predict([prompt]) for prompt in some]
    assert together.tokens.tolist() == [one.tokens[0] for one in alone]
    assert np.array_equal(together.quantiles, np.concatenate([one.quantiles for one in alone]))
    assert trained.predict([]).quantiles.shape == (0, len(LEVELS))


def test_the_same_rows_give_the_same_proxy_and_test_rows_influence_nothing(trained, rows, config):
    held = ~(rows.train | rows.validation)
    prompts = ["" if test else p for p, test in zip(rows.prompts, held, strict=True)]
    targets = np.where(held[:, None], 99, rows.targets)
    other = dataclasses.replace(rows, prompts=prompts, targets=targets)
    again = train(other, config)
    for name, each in trained.arrays().items():  # sums of threads differ in their last bits
        assert np.allclose(again.arrays()[name], each, rtol=1e-3, atol=1e-3), name
    assert again.files() == trained.files()


def test_training_rows_alone_are_remembered(trained, rows):
    assert np.array_equal(trained.logs, rows.draws[rows.train].astype(np.float32))
    assert len(trained.vectors) == rows.train.sum()


# Its folder


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory):
    where = tmp_path_factory.mktemp("saved") / "proxy"
    card = {"config": trained.config.model_dump()} | trained.metadata()
    return folder.save(where, "retrieval", trained, card)


def test_a_saved_proxy_predicts_the_same(trained, saved, rows):
    again = folder.load(saved)
    assert isinstance(again, RetrievalProxy)
    some = [*ODD.values(), *rows.prompts]
    for one, other in (
        (trained.predict(some), again.predict(some)),
        (with_config(trained, temperature=0.5).predict(some),
         with_config(again, temperature=0.5).predict(some)),
    ):  # fmt: skip
        assert np.array_equal(one.tokens, other.tokens)
        assert np.array_equal(one.quantiles, other.quantiles)


def test_no_file_of_it_holds_a_prompt_or_a_pickle(saved, rows):
    for path in saved.iterdir():
        content = path.read_bytes()
        assert rows.prompts[0].encode() not in content, path
    assert {path.name for path in saved.iterdir()} == {
        "proxy.json", "weights.safetensors", "model.onnx", "tokenizer.json",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_an_edited_or_missing_file_is_refused(saved, tmp_path, name):
    import shutil

    copy = shutil.copytree(saved, tmp_path / "copy")
    data = bytearray((copy / name).read_bytes())
    data[-1] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(InputError, match=f"{name} is missing or is not the file"):
        folder.load(copy)
    (copy / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing or is not the file"):
        folder.load(copy)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_another_file_under_a_right_hash_is_refused(saved, tmp_path, name):
    import hashlib
    import shutil

    copy = shutil.copytree(saved, tmp_path / "copy")
    (copy / name).write_bytes(b"something else")
    card = json.loads((copy / "proxy.json").read_text())
    card["files"][name] = hashlib.sha256(b"something else").hexdigest()
    (copy / "proxy.json").write_text(json.dumps(card))
    with pytest.raises(InputError) as refusal:
        folder.load(copy)
    assert "\n" not in str(refusal.value)


# Which encoder


def test_a_trained_encoder_lends_its_vectors(tiny, rows, config, tmp_path):
    from ssjf.proxy.encoder import training as encoder_training
    from ssjf.proxy.encoder.heads import EncoderConfig

    tuning = EncoderConfig(
        backbone=tiny, hidden=(), longest_tokens=24, cut="tail", epochs=1, tuned_epochs=1,
        precision="float32",
    )  # fmt: skip
    tuned = encoder_training.train(rows, tuning)
    card = {"config": tuning.model_dump()} | tuned.metadata()
    where = folder.save(tmp_path / "encoder", "encoder", tuned, card)
    proxy = train(rows, changed(config, encoder=str(where)))
    expected = np.concatenate([
        tuned.encoder.session.run(["vector"], {"ids": ids[None]})[0]
        for ids in tuned.encoder.ids(rows.prompts[:5])
    ])  # fmt: skip
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(proxy.encoder.vectors(rows.prompts[:5]), expected, atol=1e-6)
    assert proxy.metadata()["reads"] == {"longest_tokens": 24, "cut": "tail"}
    card = {"config": proxy.config.model_dump()} | proxy.metadata()
    own = folder.save(tmp_path / "own", "retrieval", proxy, card)
    where.rename(tmp_path / "elsewhere")  # the folder needs no other
    assert np.array_equal(
        folder.load(own).predict(rows.prompts[:9]).tokens, proxy.predict(rows.prompts[:9]).tokens
    )


def test_what_is_no_encoder_is_refused(rows, config):
    with pytest.raises(InputError, match="not of the kind encoder"):
        train(rows, changed(config, encoder=str(folder.folder_of("builtin"))))
    with pytest.raises(InputError, match=r"longest_tokens is 128; .* reads at most 64"):
        train(rows, changed(config, longest_tokens=128))
    with pytest.raises(InputError, match="cannot be loaded"):
        train(rows, changed(config, encoder="/nowhere"))


REFUSED = {
    "encoder": ("", "encoder is ''; it must have at least 1 character"),
    "temperature": (float("nan"), "temperature is nan; it must be a finite number"),
    "neighbours": (2.5, "neighbours is 2.5; it must be a whole number"),
}  # fmt: skip


@pytest.mark.parametrize(("key", "value", "why"), [(k, *v) for k, v in REFUSED.items()])
def test_a_wrong_config_is_refused(key, value, why):
    with pytest.raises(InputError) as refusal:
        validated(RetrievalConfig, {key: value})
    assert str(refusal.value).startswith(why)


# The command line


def test_training_from_the_command_line(tiny, tmp_path):
    prompts, logs = asked()
    source, spec = tmp_path / "texts.jsonl", tmp_path / "small.toml"
    lengths = np.rint(np.exp(logs[:, 0])).astype(int).tolist()
    pairs = zip(prompts, lengths, strict=True)
    source.write_text(
        "".join(json.dumps({"prompt": p, "output_tokens": n}) + "\n" for p, n in pairs)
    )
    spec.write_text(
        'kind = "retrieval"\n[config]\nlongest_tokens = 32\ndimensions = 8\nneighbours = 9\n'
        f'epochs = 4\nencoder = "{tiny}"\n'
    )
    done = ssjf("train", "--proxy", spec, "--data", source, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    told = folder.card(tmp_path / "out")
    assert told["test"]["spearman"][0] > 0.7
    lines = ssjf("predict", "--proxy", tmp_path / "out", "--input", source).stdout.split()
    expected = folder.load(tmp_path / "out").predict(prompts).tokens
    assert [*map(float, lines)] == pytest.approx(expected, abs=0.051)
