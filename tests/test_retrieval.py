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
from ssjf.proxy.retrieval.proxy import MEMORY, Mlp, RetrievalConfig, RetrievalProxy, VectorIndex
from ssjf.proxy.retrieval.training import fit_mlp, train

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


def vectors_of(rng, n, dimensions=16):
    found = rng.normal(size=(n, dimensions)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def brute_force(vectors, query, k):
    """Cosines and rows of the k nearest, of vectors as they are stored: in float16."""
    cosines = vectors.astype(np.float16).astype(np.float64) @ query.astype(np.float64)
    nearest = np.argsort(-cosines)[:k]
    return cosines[nearest], nearest


# The data base


def assert_exact(index, vectors, logs, queries, k):
    """The index finds what looking at every vector finds."""
    for query in queries:
        found, lengths = index.search(query, k)
        cosines, nearest = brute_force(vectors, query, k)
        assert np.allclose(found, cosines, atol=1e-5) and len(found) == min(k, len(vectors))
        assert np.allclose(lengths[:, 0], logs[nearest], atol=1e-6)


def test_search_is_that_of_brute_force():
    rng = np.random.default_rng(0)
    vectors, logs = vectors_of(rng, 3000), rng.normal(size=3000)
    index = VectorIndex.of(vectors, logs[:, None])
    for each in (index, VectorIndex.from_bytes(index.to_bytes(), 16)):
        assert len(each) == 3000
        assert_exact(each, vectors, logs, vectors_of(rng, 50), 25)
    few = VectorIndex.of(vectors[:5], logs[:5, None])
    assert_exact(few, vectors[:5], logs[:5], vectors_of(rng, 9), 25)


def test_bytes_that_are_no_data_base_are_refused():
    from safetensors.numpy import load, save

    index = VectorIndex.of(vectors_of(np.random.default_rng(3), 3, 4), np.zeros((3, 1)))
    parts = load(index.to_bytes())
    for dimensions, changed in ((5, {}), (4, {"logs": parts["logs"][:2]})):
        with pytest.raises(ValueError, match="do not fit together"):
            VectorIndex.from_bytes(save(parts | changed), dimensions)


def test_a_data_base_of_an_earlier_version_is_read():
    """It had numbers of its vectors, too: some could be forgotten."""
    from safetensors.numpy import load, save

    vectors = vectors_of(np.random.default_rng(4), 9, 4)
    parts = load(VectorIndex.of(vectors, np.arange(9.0)[:, None]).to_bytes())
    earlier = save(parts | {"next": np.array([12]), "ids": np.arange(3, 12)})
    assert_exact(VectorIndex.from_bytes(earlier, 4), vectors, np.arange(9.0), vectors, 3)


# The MLP


def test_the_mlp_is_that_of_scikit_learn():
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    rng = np.random.default_rng(5)
    vectors, logs = vectors_of(rng, 400), rng.normal(5, 1, 400)
    mlp = fit_mlp(vectors, logs, (8, 4), 0)
    with pytest.warns(ConvergenceWarning):
        other = MLPRegressor(hidden_layer_sizes=(8, 4), max_iter=1).fit(vectors, logs)
    other.coefs_, other.intercepts_ = ([*each] for each in zip(*mlp.layers, strict=True))
    assert np.allclose(mlp.logs(vectors), other.predict(4 * vectors), atol=1e-4)
    again = Mlp.from_arrays(mlp.arrays())
    assert np.array_equal(again.logs(vectors), mlp.logs(vectors))


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
    return RetrievalConfig(encoder=tiny, longest_tokens=32, dimensions=8, neighbours=9, hidden=(8,),
                           least_similarity=-1.0, epochs=4)  # fmt: skip


@pytest.fixture(scope="module")
def trained(rows, config):
    return train(rows, config)


def with_config(proxy, **changes):
    """The same proxy, otherwise configured."""
    return dataclasses.replace(proxy, config=changed(proxy.config, **changes))


def neighbours(proxy, prompts):
    """Cosines (n, k) and lengths (n, k, draws) of the nearest, NaN where there are fewer."""
    near = np.full((len(prompts), proxy.config.neighbours), np.nan)
    lengths = np.full((*near.shape, 2), np.nan)
    for i, vector in enumerate(proxy.vectors(prompts)):
        cosines, logs = proxy.memory.search(vector, proxy.config.neighbours)
        near[i, : len(logs)], lengths[i, : len(logs)] = cosines, np.exp(logs)
    return near, lengths


def said(proxy, prompts):
    """Average lengths of the neighbours, before anything is calibrated."""
    return np.exp(proxy.retrieved(proxy.vectors(prompts)).logs)


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
    assert trained.map.shape == (32, 8) and trained.vectors(["a"]).shape == (1, 8)


def test_weights_are_a_softmax_between_the_nearest_and_the_plain_mean(trained, rows):
    prompts = rows.prompts[-20:]
    nearest = with_config(trained, temperature=1e-6)
    plain = with_config(trained, temperature=1e6)
    between = with_config(trained, temperature=0.1)
    near, lengths = neighbours(trained, prompts)
    assert near.shape == (20, 9) and lengths.shape == (20, 9, 2)
    means = np.log(lengths).mean(axis=2)
    weights = np.exp(near / 0.1) / np.exp(near / 0.1).sum(axis=1, keepdims=True)
    assert np.allclose(said(between, prompts), np.exp((weights * means).sum(axis=1)))
    assert np.allclose(said(nearest, prompts), np.exp(means[:, 0]))
    assert np.allclose(said(plain, prompts), np.exp(means.mean(axis=1)), rtol=1e-4)


def test_quantiles_before_calibration_are_those_of_the_neighbours(trained, rows):
    plain = with_config(trained, temperature=1e6)
    _, lengths = neighbours(plain, rows.prompts[:20])
    expected = [np.quantile(np.log(row), LEVELS, method="inverted_cdf") for row in lengths]
    levels = plain.retrieved(plain.vectors(rows.prompts[:20])).levels
    steps = np.sort(np.log(lengths).reshape(20, -1), axis=1)
    at = [np.searchsorted(row, level - 1e-9) for row, level in zip(steps, levels, strict=True)]
    exact = [np.searchsorted(row, level - 1e-9) for row, level in zip(steps, expected, strict=True)]
    assert np.abs(np.array(at) - exact).max() <= 1  # weights are equal but for a millionth


def test_beyond_its_capacity_the_oldest_are_forgotten(trained, rows, config):
    proxy = train(rows, changed(config, capacity=50, neighbours=60))
    taught = rows.draws[rows.train]
    _, lengths = neighbours(proxy, ["a"])
    assert len(proxy.memory) == 50 and np.isnan(lengths[0, 50:]).all()
    kept = np.sort(np.log(lengths[0, :50, 0]))
    assert np.allclose(kept, np.sort(taught[-50:, 0]), atol=1e-6)


def test_the_mlp_answers_when_nothing_is_remembered_or_alike(trained, rows):
    prompts = rows.prompts[:30]
    expected = np.exp(trained.fallback.logs(trained.vectors(prompts)))
    none = VectorIndex.of(np.zeros((0, 8)), np.zeros((0, 2)))
    empty = dataclasses.replace(trained, memory=none)
    near, lengths = neighbours(empty, prompts)
    assert np.isnan(near).all() and np.isnan(lengths).all()
    strict = dataclasses.replace(with_config(trained, least_similarity=1.0), memory=none)
    for proxy in (empty, strict):
        predicted = proxy.predict(prompts)
        assert np.allclose(predicted.tokens, expected)
        assert np.isfinite(predicted.quantiles).all()
        assert np.allclose(predicted.quantiles, trained.far.quantiles(np.log(expected)))


def test_the_threshold_parts_what_is_retrieved_from_what_is_not(trained, rows):
    prompts = rows.prompts[-80:]
    first = neighbours(trained, prompts)[0][:, 0]
    least = float(np.median(first))
    tokens = with_config(trained, least_similarity=least).predict(prompts).tokens
    other = np.exp(trained.fallback.logs(trained.vectors(prompts)))
    assert np.allclose(tokens, np.where(first >= least, said(trained, prompts), other))


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
        assert np.allclose(again.arrays()[name], each, rtol=1e-3, atol=1e-4), name
    assert {k: v for k, v in again.files().items() if k != MEMORY} == {
        k: v for k, v in trained.files().items() if k != MEMORY
    }


def test_validation_rows_are_not_remembered(trained, rows):
    assert len(trained.memory) == rows.train.sum()
    _, lengths = neighbours(with_config(trained, neighbours=1000), ["a"])
    known = np.sort(np.log(lengths[0, : rows.train.sum()]).ravel())
    assert np.allclose(known, np.sort(rows.draws[rows.train].ravel()), atol=1e-6)


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
        "proxy.json", "weights.safetensors", "model.onnx", "tokenizer.json", "memory.safetensors",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["memory.safetensors", "model.onnx", "tokenizer.json"])
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


@pytest.mark.parametrize("name", ["memory.safetensors", "model.onnx", "tokenizer.json"])
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
        llm=True, precision="float32",
    )  # fmt: skip
    told = dataclasses.replace(rows, llms=["a", "b"] * (len(rows.prompts) // 2))
    tuned = encoder_training.train(told, tuning)
    card = {"config": tuning.model_dump()} | tuned.metadata()
    where = folder.save(tmp_path / "encoder", "encoder", tuned, card)
    proxy = train(rows, changed(config, encoder=str(where)))
    no_llm = np.zeros((1, 2), np.float32)
    expected = np.concatenate([
        tuned.encoder.session.run(["vector"], {"ids": ids[None], "llm": no_llm})[0]
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
    "encoder": ("", "encoder is ''; it must be text"),
    "hidden": ((0,), "hidden is [0]; it must be at most 8 whole numbers from 1 to 8192"),
    "temperature": (float("nan"), "temperature is nan; it must be a number from 1e-06"),
    "neighbours": (2.5, "neighbours is 2.5; it must be a whole number from 1 to 1000"),
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
        f'hidden = [8]\nepochs = 4\nencoder = "{tiny}"\n'
    )
    done = ssjf("train", "--proxy", spec, "--data", source, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    told = folder.card(tmp_path / "out")
    assert told["test"]["spearman"][0] > 0.7 and 0 <= told["found"]["fallback_share"] <= 1
    lines = ssjf("predict", "--proxy", tmp_path / "out", "--input", source).stdout.split()
    expected = folder.load(tmp_path / "out").predict(prompts).tokens
    assert [*map(float, lines)] == pytest.approx(expected, abs=0.051)
