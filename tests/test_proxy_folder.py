"""A trained proxy as a folder: whole or not at all, and refused where it was edited."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from commands import contents, refused
from ssjf.errors import InputError
from ssjf.proxy import io as folders
from ssjf.proxy.base import LEVELS
from ssjf.proxy.io import BUILTIN, CARD, WEIGHTS, load, save
from ssjf.proxy.light.proxy import LightProxy, Trees

PROMPTS = ["", "Write an essay.", "写", "Is it?"]


def small(seed=0):
    """A proxy of random weights: 8 buckets, one score, two dimensions, two stumps."""
    rng = np.random.default_rng(seed)
    stumps = Trees(
        feature=np.array([[0, -1, -1], [1, -1, -1]], np.int16),
        threshold=np.array([[5, 0, 0], [1, 0, 0]], np.float32),
        left=np.array([[1, 0, 0]] * 2, np.int16),
        right=np.array([[2, 0, 0]] * 2, np.int16),
        value=rng.normal(size=(2, 3)).astype(np.float32),
    )
    return LightProxy(
        idf=rng.random(8).astype(np.float16),
        linear=rng.normal(size=(8, 1)).astype(np.float16),
        offset=np.array([5.0]),
        projection=rng.integers(-9, 9, (8, 2)).astype(np.int8),
        scale=np.array([0.1, 0.2]),
        trees=stumps,
        base=np.array([4.5]),
        edges=np.array([4.5]),
        residuals=np.sort(rng.normal(size=(2, len(LEVELS))), axis=1),
    )


@pytest.fixture
def saved(tmp_path):
    return save(tmp_path / "proxies" / "mine", "light", small(), {"data": "none"})


def rewrite(folder, **changes):
    """Other arrays in a folder, with a card that fits them."""
    arrays = load_file(folder / WEIGHTS) | changes
    save_file({k: v for k, v in arrays.items() if v is not None}, folder / WEIGHTS)
    edit(folder, sha256=hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest())


def edit(folder, **changes):
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(card | changes))


def test_a_saved_proxy_predicts_the_same(saved):
    before, after = small().predict(PROMPTS), load(saved).predict(PROMPTS)
    assert np.array_equal(before.tokens, after.tokens)
    assert np.array_equal(before.quantiles, after.quantiles)
    assert folders.card(saved)["data"] == "none"
    assert len(set(before.tokens)) > 1


def test_a_folder_is_a_card_and_safetensors_that_all_may_read(saved):
    assert [*contents(saved)] == [CARD, WEIGHTS]
    assert {path.stat().st_mode & 0o444 for path in saved.iterdir()} == {0o444}
    assert set(load_file(saved / WEIGHTS)) == small().arrays().keys()


def test_the_same_proxy_is_the_same_file(saved, tmp_path):
    again = save(tmp_path / "again", "light", small(), {"data": "none"})
    assert (again / WEIGHTS).read_bytes() == (saved / WEIGHTS).read_bytes()
    assert (again / CARD).read_bytes() == (saved / CARD).read_bytes()


def test_the_folder_of_another_is_kept(saved):
    before = contents(saved)
    with pytest.raises(InputError, match="is there already; choose a folder that is not"):
        save(saved, "light", small(1), {})
    assert contents(saved) == before and os.listdir(saved.parent) == ["mine"]


@pytest.mark.parametrize("card", [{"data": object()}, {"sizes": {1, 2}}])
def test_a_failure_while_writing_leaves_nothing(tmp_path, card):
    with pytest.raises(TypeError):
        save(tmp_path / "new", "light", small(), card)
    assert not [*tmp_path.iterdir()]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"cannot write to .*: No space left on device"):
        save(tmp_path / "new", "light", small(), {})
    assert not [*tmp_path.iterdir()]


def test_only_what_was_left_of_this_very_folder_is_removed(tmp_path):
    kept = [".tmp-abcd1234-other", ".tmp-mine", "mine-2"]
    for name in [*kept, ".tmp-abcd1234-mine"]:
        (tmp_path / name).mkdir()
    save(tmp_path / "mine", "light", small(), {})
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "mine"])


def test_below_a_file_nothing_can_be_saved(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write to .*: .*file is not a folder"):
        save(tmp_path / "file" / "a" / "b", "light", small(), {})


def test_a_broken_link_is_not_replaced(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is there already"):
        save(tmp_path / "link", "light", small(), {})


# What is refused


def flip(folder):
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-5] ^= 1
    (folder / WEIGHTS).write_bytes(data)


def truncate(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-9])


def card_of(text):
    return lambda folder: (folder / CARD).write_bytes(text)


def card_with(**changes):
    return lambda folder: edit(folder, **changes)


def arrays_with(**changes):
    return lambda folder: rewrite(folder, **changes)


def no_safetensors(folder):
    (folder / WEIGHTS).write_bytes(b"\x80\x04}.")  # an empty dictionary, pickled
    edit(folder, sha256=hashlib.sha256(b"\x80\x04}.").hexdigest())


FAR = np.full((2, 3), 30_000, np.int16)
WRONG = {
    "a flipped bit": (flip, "is missing or is not the file proxy.json was written for"),
    "cut weights": (truncate, "is missing or is not the file"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "is missing or is not the file"),
    "no card": (lambda f: (f / CARD).unlink(), "is no proxy: it has no proxy.json"),
    "no folder": (lambda f: shutil.rmtree(f), "is no proxy: it has no proxy.json"),
    "a file": (lambda f: (shutil.rmtree(f), f.write_text("")), "is no proxy"),
    "other hash": (card_with(sha256="0" * 64), "is missing or is not the file"),
    "no hash": (card_with(sha256=None), "is missing or is not the file"),
    "other format": (card_with(format=2), "is of format 2; this version reads 1"),
    "other kind": (card_with(kind="bert"), "unknown kind of proxy in"),
    "kind of no name": (card_with(kind=["light"]), "unknown kind of proxy in"),
    "empty card": (card_of(b""), "proxy.json is not JSON: "),
    "card of other text": (card_of(b"\xff\xfe"), "proxy.json is not JSON: "),
    "deep card": (card_of(b"[" * 10**5), "proxy.json is not JSON: "),
    "half a card": (card_of(b'{"format": 1,'), "proxy.json is not JSON: "),
    "card of a list": (card_of(b"[]"), "lacks format, kind or sha256"),
    "card without kind": (card_of(b'{"format": 1, "sha256": ""}'), "lacks format, kind or sha256"),
    "a pickle": (no_safetensors, "does not hold a light proxy"),
    "no such array": (arrays_with(idf=None), "does not hold a light proxy ("),
    "another array": (arrays_with(more=np.zeros(2)), "does not hold a light proxy ("),
    "no number": (arrays_with(offset=np.array([np.nan]), residuals=np.full((2, 7), np.nan)),
                  "it predicts no length"),
    "columns that are not there": (arrays_with(**{"trees.feature": FAR}), "the trees read more"),
    "branches to nowhere": (arrays_with(**{"trees.left": FAR}), "a node that is not there"),
    "trees of other types": (arrays_with(**{"trees.left": FAR * 0.5}), "not of one shape and of"),
}  # fmt: skip


@pytest.mark.parametrize(("harm", "why"), WRONG.values(), ids=WRONG)
def test_an_edited_folder_is_refused_in_one_sentence(saved, tmp_path, harm, why):
    harm(saved)
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"prompt": "a"}\n')
    message = refused("predict", "--proxy", saved, "--input", prompts)
    assert str(saved) in message and why in message


def test_trees_that_go_round_in_circles_end(saved):
    rewrite(saved, **{"trees.left": np.zeros((2, 3), np.int16),
                      "trees.right": np.zeros((2, 3), np.int16)})  # fmt: skip
    assert np.isfinite(load(saved).predict(PROMPTS).tokens).all()


# The one that comes with the package


def test_the_builtin_proxy_is_small_and_whole():
    folder = folders.folder_of("builtin")
    assert sorted(path.name for path in folder.iterdir()) == [CARD, WEIGHTS]
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 5e6
    assert load(BUILTIN).predict(["Hi"]).tokens[0] >= 1
    card = folders.card(folder)
    assert card["kind"] == "light" and card["data"].startswith("alpaca-vicuna+")
    assert card["test"]["spearman"][0] >= 0.75 and 0.77 <= card["test"]["coverage_80"][0] <= 0.83
