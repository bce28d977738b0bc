"""Encoders: training that learns, goes on after a kill and stops on nonsense; their folders."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.stats import spearmanr

import tiny_backbone
from commands import contents, one_sentence, ssjf
from ssjf.config import validated
from ssjf.errors import InputError
from ssjf.proxy import io as folder
from ssjf.proxy.base import TrainingRows
from ssjf.proxy.encoder.heads import HEADS, EncoderConfig
from ssjf.proxy.encoder.network import backbone, to_onnx
from ssjf.proxy.encoder.proxy import OnnxEncoder
from ssjf.proxy.encoder.trainer import STATE, last_checkpoint
from ssjf.proxy.encoder.training import train

N = 500
WEIGHS = {"long": 0.4, "essay": 0.9, "short": -1.0}


def prompts(n=N, seed=0):
    rng = np.random.default_rng(seed)
    words = tiny_backbone.WORDS.split()
    return [" ".join(rng.choice(words, rng.integers(2, 9))) for _ in range(n)]


def logs(texts, seed=0, draws=1):
    noise = 0.1 * np.random.default_rng(seed).standard_normal((len(texts), draws))
    true = [4 + sum(weight * text.count(word) for word, weight in WEIGHS.items()) for text in texts]
    return np.log(np.maximum(np.rint(np.exp(np.array(true)[:, None] + noise)), 1))


def rows(**changes):
    texts = prompts()
    draws = logs(texts, draws=2)
    place = np.arange(N)
    return replace(
        TrainingRows(texts, draws.mean(axis=1, keepdims=True), draws, place < 360,
                     (place >= 360) & (place < 430)), **changes)  # fmt: skip


TEST = slice(430, None)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_backbone.make(tmp_path_factory.mktemp("backbone") / "tiny")


@pytest.fixture(scope="module")
def config(tiny):
    return EncoderConfig(
        backbone=str(tiny), head="log-mse", epochs=6, tuned_epochs=6, batch=16, hidden=(32,),
        learning_rate=3e-3, head_learning_rate=5e-3, longest_tokens=32, precision="float32",
        dropout=0.0, patience=9, checkpoint_steps=5,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(config):
    return train(rows(), config)


def card(proxy, config):
    return {"config": config.model_dump()} | proxy.metadata()


def changed(config, **options):
    return validated(EncoderConfig, config.model_dump() | options)


def same(a, b):
    return a.encoder.model == b.encoder.model


def trained_weights(monkeypatch, config):
    """The proxy, and the weights of its network by name."""
    exported = []

    def export(net, *sizes):
        exported.append({name: each.numpy().copy() for name, each in net.state_dict().items()})
        return to_onnx(net, *sizes)

    monkeypatch.setattr("ssjf.proxy.encoder.network.to_onnx", export)
    return train(rows(), config), exported[0]


@pytest.mark.parametrize("head", HEADS)
def test_every_head_learns_an_order_that_can_be_learnt(config, head):
    proxy = train(rows(), changed(config, head=head, decode="expected"))
    said = proxy.predict(prompts()[TEST])
    truth = logs(prompts()[TEST])[:, 0]
    assert spearmanr(said.tokens, truth).statistic > 0.6
    assert (np.diff(said.quantiles, axis=1) >= 0).all() and (said.tokens >= 1).all()
    taus = [each["tau"] for each in proxy.history]
    assert max(taus) > taus[0] or taus[0] > 0.6


def test_the_same_seed_trains_the_same_network_and_another_does_not(config, trained):
    assert same(trained, train(rows(), config))
    assert not same(trained, train(rows(), changed(config, seed=1)))


def test_rows_outside_both_masks_change_nothing(config, trained):
    texts = prompts()
    texts[TEST] = ["essay"] * len(texts[TEST])
    draws = logs(prompts(), draws=2)
    draws[TEST] = 9.0
    other = rows(prompts=texts, draws=draws, targets=draws.mean(axis=1, keepdims=True))
    found = train(other, config)
    assert same(trained, found)
    for name, array in trained.arrays().items():
        assert np.array_equal(array, found.arrays()[name]), name


def test_validation_rows_do_not_move_thresholds_or_scalers(config):
    draws = logs(prompts(), draws=2)
    draws[360:430] += 1
    short = changed(config, epochs=1, tuned_epochs=1)
    told = [train(rows(), short), train(rows(draws=draws, targets=draws[:, :1]), short)]
    for name in ("log", "tokens", "edges", "class_means"):
        assert np.array_equal(getattr(told[0].scale, name), getattr(told[1].scale, name)), name


def test_a_frozen_encoder_is_left_as_it_was_and_its_head_learns(config, tiny, monkeypatch):
    _, model = backbone(str(tiny))
    before = {name: each.numpy().copy() for name, each in model.state_dict().items()}
    proxy, weights = trained_weights(monkeypatch, changed(config, tuned_epochs=0, epochs=20))
    for name, array in before.items():
        assert np.array_equal(weights[f"model.{name}"], array), name
    assert {each["phase"] for each in proxy.history} == {"head"}
    assert spearmanr(proxy.predict(prompts()[TEST]).tokens, logs(prompts()[TEST])).statistic > 0.3


def test_tune_then_freeze_goes_through_both_phases(config):
    proxy = train(rows(), changed(config, tuned_epochs=2, epochs=5))
    assert [each["phase"] for each in proxy.history] == ["tuning"] * 2 + ["head"] * 3


def test_the_table_of_tokens_is_tuned_only_if_asked(config, tiny, monkeypatch):
    name = "model.embeddings.word_embeddings.weight"
    _, model = backbone(str(tiny))
    before = model.get_input_embeddings().weight.numpy(force=True).copy()
    short = changed(config, epochs=1, tuned_epochs=1)
    assert np.array_equal(trained_weights(monkeypatch, short)[1][name], before)
    tuned = trained_weights(monkeypatch, changed(short, tune_embeddings=True))[1][name]
    assert not np.array_equal(tuned, before)


def test_it_stops_when_validation_no_longer_gets_better(config):
    proxy = train(rows(), changed(config, epochs=200, tuned_epochs=0, patience=2))
    taus = [each["tau"] for each in proxy.history]
    assert len(taus) < 200 and max(taus) == taus[-3]


def test_a_label_that_only_helps_is_learnt_where_the_first_is_unknown(config):
    draws = logs(prompts(), draws=1)
    few = np.where(np.arange(N)[:, None] % 6 == 0, draws, np.nan)
    few[360:] = draws[360:]
    alone = rows(draws=few, targets=few)
    helped = rows(draws=few, targets=np.hstack([few, draws]))
    truth = draws[TEST, 0]
    found = [spearmanr(train(each, config).predict(prompts()[TEST]).tokens, truth).statistic
             for each in (alone, helped)]  # fmt: skip
    assert found[1] > found[0]


# --- killed, and gone on with ------------------------------------------------------------------

SPEC = """
kind = "encoder"
labels = ["output_tokens"]
[config]
backbone = "{}"
head = "log-mse"
epochs = 4
tuned_epochs = 2
batch = 8
hidden = [16]
longest_tokens = 32
learning_rate = 1e-3
head_learning_rate = 1e-3
precision = "float32"
checkpoint_steps = 10
patience = 50
"""


def asked(tmp_path, tiny):
    spec, data = tmp_path / "tiny.toml", tmp_path / "data.jsonl"
    spec.write_text(SPEC.format(tiny))
    texts = sorted(set(prompts(900)))
    table = zip(texts, np.exp(logs(texts))[:, 0].tolist(), strict=True)
    data.write_text("".join(json.dumps({"prompt": p, "output_tokens": int(n)}) + "\n"
                            for p, n in table))  # fmt: skip
    return ["train", "--proxy", spec, "--data", data, "--out"]


def test_a_killed_training_goes_on_and_ends_as_if_it_had_not_been(tmp_path, tiny):
    command = asked(tmp_path, tiny)
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    child = subprocess.Popen(
        [sys.executable, "-m", "ssjf", *map(str, [*command, broken])], start_new_session=True,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    kept = tmp_path / "broken.training"
    try:
        while not any(kept.glob(f"*/checkpoint-*/{STATE}")):
            assert child.poll() is None, child.stderr.read()
            time.sleep(0.005)
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
    (run,) = kept.iterdir()
    assert not broken.exists() and last_checkpoint(run)

    assert ssjf(*command, broken).exit_code == 0
    assert ssjf(*command, whole).exit_code == 0
    assert not kept.exists(), "what was kept for going on is gone at the end"
    cards = [json.loads((path / "proxy.json").read_text()) for path in (broken, whole)]
    for key in ("sha256", "files"):
        assert cards[0][key] == cards[1][key], "the very same weights"
    taus = [[each["tau"] for each in card["history"]] for card in cards]
    assert taus[0] == taus[1] and len(taus[0]) == 4


def test_nan_is_found_before_it_is_stepped_upon(config, monkeypatch, tmp_path):
    from ssjf.proxy.encoder import network

    honest, calls = network.LOSSES["log-mse"], []

    def breaks(out, draws, scale):
        calls.append(1)
        return honest(out, draws, scale) * (float("nan") if len(calls) == 12 else 1)

    monkeypatch.setitem(network.LOSSES, "log-mse", breaks)
    with pytest.raises(InputError, match=r"not a number at step 12 .*lower .* is kept in"):
        train(rows(), config, tmp_path / "keep")
    kept = Path(last_checkpoint(tmp_path / "keep"))
    assert json.loads((kept / STATE).read_text())["global_step"] == 10
    assert all(np.isfinite(each).all() for each in load_file(kept / "model.safetensors").values())


# --- folders -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(trained, config, tmp_path_factory):
    out = tmp_path_factory.mktemp("saved") / "proxy"
    return folder.save(out, "encoder", trained, card(trained, config))


ODD = {
    "empty": "", "long": "write a long essay " * 55_000, "Chinese": "写一篇关于大海的长文章",
    "emoji": "🌊" * 50,
    "code": "def f(x):\n\treturn x**2  # 平方\n", "lone surrogate": "a \ud800 b", "zeros": "\0" * 9,
}  # fmt: skip


def test_a_saved_proxy_predicts_as_the_trained_one(saved, trained):
    texts = [*prompts()[TEST], *ODD.values()]
    a, b = trained.predict(texts), folder.load(saved).predict(texts)
    assert np.array_equal(a.tokens, b.tokens) and np.array_equal(a.quantiles, b.quantiles)


@pytest.mark.parametrize("name", ODD)
def test_any_text_has_a_prediction(trained, name):
    said = trained.predict([ODD[name]])
    assert np.isfinite(said.tokens).all() and np.isfinite(said.quantiles).all()


@pytest.mark.parametrize("shipped", [True, False])
def test_to_predict_the_packages_of_training_need_not_be_there(saved, shipped):
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'sklearn', 'lightgbm', 'onnx'):\n"
        "    sys.modules[name] = None\n"  # so its import is refused
        "from ssjf.cli import main; main(sys.argv[1:])"
    )
    name = "builtin" if shipped else str(saved)
    command = [sys.executable, "-c", code, "predict", "--proxy", name, "--input", "-"]
    done = subprocess.run(command, input='{"prompt": "a story"}\n', capture_output=True, text=True)
    expected = folder.load(name).predict(["a story"]).tokens[0]
    assert float(done.stdout) == pytest.approx(expected, abs=0.051), done.stderr


def test_no_prompts_have_no_predictions(trained):
    assert len(trained.predict([]).tokens) == 0


def test_a_prediction_does_not_depend_on_what_else_is_asked(trained):
    texts = [*prompts()[TEST][:20], *ODD.values()]
    together = trained.predict(texts).tokens
    assert np.array_equal(together, [trained.predict([text]).tokens[0] for text in texts])


@pytest.mark.parametrize("file", ["weights.safetensors", "model.onnx", "tokenizer.json"])
def test_an_edited_file_is_refused(saved, tmp_path, file):
    import shutil

    copy = shutil.copytree(saved, tmp_path / "copy")
    data = bytearray((copy / file).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / file).write_bytes(data)
    with pytest.raises(InputError, match=rf"{file} is missing or is not the file"):
        folder.load(copy)
    (copy / file).unlink()
    with pytest.raises(InputError, match=rf"{file} is missing"):
        folder.load(copy)


def test_a_proxy_without_a_tokenizer_is_refused(trained, config, tmp_path):
    none = replace(trained, encoder=replace(trained.encoder, tokenizer_json="{}"))
    path = folder.save(tmp_path / "none", "encoder", none, card(trained, config))
    with pytest.raises(InputError, match=r"not a tokenizer\.json"):
        folder.load(path)


def test_the_exported_model_says_what_the_network_says(config, monkeypatch):
    """In float32 to the rounding of sums; in 8 bits nearly, and in nearly the same order."""
    import torch

    level = logging.getLogger().level

    from ssjf.proxy.encoder.network import Network

    texts = prompts()[TEST]
    proxy, weights = trained_weights(monkeypatch, config)
    _, model = backbone(config.backbone)
    net = Network(model, config, 1)
    net.load_state_dict({name: torch.tensor(each) for name, each in weights.items()})
    net.eval()
    with torch.no_grad():
        said = [
            net(ids[None], torch.ones_like(ids)[None]).item()
            for ids in map(torch.from_numpy, proxy.encoder.ids(texts))
        ]
    assert spearmanr(proxy.outputs(texts)[:, 0], said).statistic > 0.95
    monkeypatch.setattr("ssjf.proxy.encoder.network._quantised", lambda model: model)
    exact = replace(proxy, encoder=replace(proxy.encoder, model=to_onnx(net, 1)))
    assert exact.outputs(texts)[:, 0] == pytest.approx(said, abs=1e-4)
    assert logging.getLogger().level == level, "what others log is not ours to silence"


# --- reading -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer(tiny):
    return backbone(str(tiny))[0]


CLS, SEP = 2, 3


@pytest.mark.parametrize("cut", ["head", "tail", "head-tail"])
def test_truncation_keeps_the_marks_and_the_right_tokens(tokenizer, cut):
    words = tiny_backbone.WORDS.split()
    texts = [" ".join(words[i % len(words)] for i in range(n)) for n in (3, 30, 31, 200)]
    whole = OnnxEncoder(b"", tokenizer, 4096, cut).ids(texts)
    for full, ids in zip(whole, OnnxEncoder(b"", tokenizer, 32, cut).ids(texts), strict=True):
        assert ids[0] == CLS and ids[-1] == SEP and len(ids) <= 32
        if len(full) <= 32:
            assert np.array_equal(ids, full)
            continue
        inner, all_of_them = ids[1:-1], full[1:-1]
        front = {"head": 30, "tail": 0, "head-tail": 7}[cut]
        assert np.array_equal(inner[:front], all_of_them[:front])
        assert np.array_equal(inner[front:], all_of_them[len(all_of_them) - (30 - front) :])


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option, value, said",
    [
        ("head", "6-class", "it must be .*3-class"),
        ("cut", "middle", "it must be .*head-tail"),
        ("epochs", 0, "at least 1"),
        ("epochs", 2.5, "whole number"),
        ("tuned_epochs", 99, "at most epochs"),
        ("learning_rate", "fast", "must be a number"),
        ("hidden", [0], "at least 1"),
        ("backbone", 7, "must be text"),
        ("device", "tpu", "it must be .cpu. or .cuda."),
    ],
)
def test_a_wrong_option_is_refused(option, value, said):
    with pytest.raises(InputError, match=f"{option}.*{said}"):
        validated(EncoderConfig, {option: value})


def test_a_backbone_that_is_not_there_is_one_sentence(config, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # no waiting for it
    (tmp_path / "empty").mkdir()
    for name in (str(tmp_path / "empty"), "no/such-model"):
        with pytest.raises(InputError, match=r"cannot be loaded .*minilm, bert-base-uncased"):
            train(rows(), changed(config, backbone=name))


def test_longer_texts_than_the_backbone_reads_are_refused(config):
    with pytest.raises(InputError, match=r"longest_tokens is 100; .* reads at most 64"):
        train(rows(), changed(config, longest_tokens=100))


def test_a_gpu_that_is_not_there_is_refused(config, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="finds no GPU here"):
        train(rows(), changed(config, device="cuda"))


def test_out_is_not_touched_when_it_is_there(tmp_path, tiny):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("x")
    before = contents(out)
    assert "is there already" in one_sentence(ssjf(*asked(tmp_path, tiny), out))
    assert contents(out) == before


def test_minilm_comes_with_its_package_and_needs_no_network(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tokenizer_json, model = backbone("minilm")
    assert model.config.hidden_size == 384
    ids = OnnxEncoder(b"", tokenizer_json, 512, "head").ids(["Hello world"])[0]
    assert ids.tolist() == [101, 7592, 2088, 102]  # [CLS] hello world [SEP] of uncased BERT


def test_answers_are_counted_by_the_tokenizer_that_is_named(tmp_path, tiny):
    spec, data, out = tmp_path / "s.toml", tmp_path / "d.jsonl", tmp_path / "out"
    spec.write_text(SPEC.format(tiny))
    texts = sorted(set(prompts(900)))
    data.write_text("".join(
        json.dumps({"prompt": p, "response": "word " * int(n)}) + "\n"
        for p, n in zip(texts, np.exp(logs(texts))[:, 0].tolist(), strict=True)))  # fmt: skip
    command = ["train", "--proxy", spec, "--data", data, "--out", out]
    assert "name the tokenizer" in one_sentence(ssjf(*command))
    assert ssjf(*command, "--tokenizer", "whitespace").exit_code == 0
    assert json.loads((out / "proxy.json").read_text())["length_tokenizer"] == "whitespace"
