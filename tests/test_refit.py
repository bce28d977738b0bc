"""A refitted proxy: it mends an order, forgets, reads cut-off answers, and keeps no text."""

import json
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import spearmanr

from ssjf.errors import InputError
from ssjf.proxy import io, refit
from ssjf.proxy.mixture import BUCKETS, FEWEST, Finished, Mixture, Reading
from ssjf.proxy.refit import FIRST, Refit, as_served, prequential
from ssjf.workload.texts import Texts


def trained(*given):
    from ssjf.experiments.train import train  # needs pandas, and one test has none

    return train(*given)


ASKS = {"list": 20, "explain": 80, "describe": 160, "tell": 400}
THINGS = ["sea", "moon", "code", "python", "poem", "city", "river", "law"]


def traffic(n, seed=0, noise=0.2, turned=False):
    """Prompts whose first word says how long the answer gets, and its length."""
    rng = np.random.default_rng(seed)
    asks = rng.choice([*ASKS], n)
    lengths = [*ASKS.values()][:: -1 if turned else 1]
    tokens = np.array([dict(zip(ASKS, lengths, strict=True))[ask] for ask in asks])
    prompts = [f"{ask} me the {rng.choice(THINGS)} {rng.choice(THINGS)}" for ask in asks]
    return prompts, np.maximum(1, np.round(tokens * np.exp(rng.normal(0, noise, n))))


class Fixed:
    """Predicts what it is given, one by one."""

    def __init__(self, tokens):
        self.tokens = np.asarray(tokens, np.float64)

    def predict(self, prompts):
        return SimpleNamespace(tokens=self.tokens)


def order(predicted, tokens, rows):
    return spearmanr(predicted[rows], tokens[rows])[0]


# What it learns


def test_an_order_that_the_trained_proxy_has_upside_down_is_mended():
    prompts, tokens = traffic(300)
    found = prequential(prompts, tokens, Fixed(5e3 / tokens))
    assert np.array_equal(np.argsort(found[:5]), np.argsort(5e3 / tokens[:5]))  # nothing is known
    assert order(found, tokens, slice(100, None)) > 0.85
    assert 0.8 < np.median(found[100:] / tokens[100:]) < 1.25


def test_it_is_not_clearly_worse_than_a_trained_proxy_that_is_right():
    """Where the prompts say nothing there is only the trained proxy's prediction."""
    rng = np.random.default_rng(1)
    tokens = np.exp(rng.normal(5, 1, 600)).round() + 1
    shipped = tokens * np.exp(rng.normal(0, 0.5, 600))
    prompts = [" ".join(rng.choice(THINGS, 5)) for _ in tokens]
    found = prequential(prompts, tokens, Fixed(shipped))
    late = slice(100, None)
    assert order(found, tokens, late) > order(shipped, tokens, late) - 0.02


def test_levels_are_learned_from_the_first_requests_on():
    prompts, tokens = traffic(30)
    found = prequential(prompts, tokens, Fixed(tokens / 4))
    ratio = tokens / found
    assert ratio[0] == 4 and ratio[:5].max() > 2 and np.median(ratio[20:]) < 1.7


def test_a_proxy_that_says_one_length_for_all_makes_no_trouble():
    prompts, tokens = traffic(200)
    found = prequential(prompts, tokens, Fixed(np.full(200, 50)))
    assert np.isfinite(found).all() and order(found, tokens, slice(100, None)) > 0.85


def test_it_forgets_what_was_before_a_drift():
    """What was learned contradicts what comes: who forgets sooner is right sooner."""
    (before, long_before), (after, long_after) = traffic(600), traffic(400, 1, turned=True)
    prompts, tokens = before + after, np.concatenate([long_before, long_after])
    late = slice(700, None)
    quick, slow = (
        order(prequential(prompts, tokens, Fixed(np.full(1000, 50)), half_life=each), tokens, late)
        for each in (50, 1e9)
    )
    assert quick > 0.7 > slow + 0.2


def test_answers_that_were_cut_off_are_longer_than_they_seem():
    """Of the longest kind every second answer is cut at 30; whoever takes that for its length puts
    it next to the shortest."""
    prompts, tokens = traffic(500)
    cut = np.array([p.startswith("tell") for p in prompts]) & (np.arange(500) % 2 == 0)
    seen = np.where(cut, 30, tokens)
    shipped = Fixed(np.full(500, 50))
    read, taken = (
        prequential(prompts, seen, shipped, cut_off=each) for each in (cut, np.zeros(500, bool))
    )
    late, tells = slice(200, None), [p.startswith("tell") for p in prompts[200:]]
    assert order(read, tokens, late) > order(taken, tokens, late)
    assert np.median(read[200:][tells]) > 1.5 * np.median(taken[200:][tells])


def test_an_order_is_mended_though_half_of_the_answers_are_cut_off():
    """What a trained proxy that is wrong says of them must not be learned from it."""
    prompts, tokens = traffic(400)
    cut = tokens > 100
    found = prequential(prompts, np.minimum(tokens, 100), Fixed(5e3 / tokens), cut_off=cut)
    assert order(found, np.minimum(tokens, 100), slice(150, None)) > 0.8


def test_where_all_answers_are_cut_off_the_order_stays():
    prompts, tokens = traffic(100)
    found = prequential(prompts, np.full(100, 5), Fixed(tokens), cut_off=np.ones(100, bool))
    assert order(found, tokens, slice(0, None)) > 0.97


def test_requests_that_finish_later_are_learned_later():
    prompts, tokens = traffic(200)
    shipped = Fixed(5e3 / tokens)
    at_once, late = (prequential(prompts, tokens, shipped, lag) for lag in (0, 60))
    assert np.array_equal(late[:61], shipped.tokens[:61])
    assert not np.array_equal(at_once[:61], shipped.tokens[:61])
    assert np.array_equal(prequential(prompts, tokens, shipped, 10**6), shipped.tokens)


def test_the_same_requests_give_the_same_predictions():
    prompts, tokens = traffic(150)
    first, second = (prequential(prompts, tokens, Fixed(tokens / 2)) for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("prompt", ["", "a" * 10**6, "请用中文写一篇", "a \ud800 b", "\0"])
def test_any_prompt_is_predicted_and_learned(prompt):
    learner = taught(60)
    tokens, reading = learner.predict(prompt, 1e-3)
    assert 1 <= tokens < 1e6
    learner.learn(reading, 10**6)
    learner.refit()


@pytest.mark.parametrize("odd", [0, -1, np.nan, np.inf, 1e9])
def test_what_is_no_length_is_refused(odd):
    learner = taught(3)
    with pytest.raises(ValueError, match="no length"):
        learner.learn(learner.predict("a", 5)[1], odd)
    assert len(learner) == 3


# The mixture


def mixed(shipped, refitted, tokens):
    """How much of the shipped and the refitted prediction is in a mixture by these requests."""
    none = np.zeros(0, np.int32)
    logs = np.log(np.array([shipped, refitted, tokens], np.float64)).T
    rows = [Finished(Reading(none, none, a, b), length, False) for a, b, length in logs]
    found = Mixture.of(rows, logs[:, 2])
    spread = np.nanstd(logs[:, :2], axis=0)
    parts = np.array([found.shipped, found.refitted]) * spread
    return parts[1] / parts.sum()


def test_whichever_orders_better_takes_over():
    rng = np.random.default_rng(2)
    right = np.exp(rng.normal(5, 1, 200))
    wrong = np.exp(rng.normal(5, 1, 200))
    assert mixed(right, wrong, right) < 0.05
    assert mixed(wrong, right, right) > 0.95
    both = right * np.exp(rng.normal(0, 1, 200)), right * np.exp(rng.normal(0, 1, 200))
    assert 0.2 < mixed(*both, right) < 0.8


def test_few_that_the_ridge_has_predicted_do_not_count():
    tokens = np.arange(1, 51)
    few, enough = (np.where(tokens > 50 - n, tokens, np.nan) for n in (FEWEST - 1, FEWEST))
    assert mixed(tokens[::-1], few, tokens) == 0
    assert mixed(tokens[::-1], enough, tokens) > 0.8


# What is kept


def taught(n, seed=0):
    learner = Refit()
    for prompt, tokens in zip(*traffic(n, seed), strict=True):
        learner.learn(learner.predict(prompt, 50.0)[1], tokens)
        if learner.due:
            learner.refit()
    return learner


def test_what_is_remembered_goes_through_arrays_and_goes_on_alike():
    learner = taught(200)
    again = Refit.from_arrays(learner.arrays())
    for each in (learner, again):
        each.refit()
        each._mix()
    for prompt, tokens in zip(*traffic(60, 3), strict=True):
        (one, reading), (other, also) = (each.predict(prompt, 70.0) for each in (learner, again))
        assert one == other
        learner.learn(reading, tokens)
        again.learn(also, tokens)
    for name, array in learner.arrays().items():
        assert np.array_equal(again.arrays()[name], array, equal_nan=array.dtype.kind == "f")


def test_arrays_that_do_not_fit_are_refused():
    arrays = taught(20).arrays()
    wrong = [("ids", arrays["ids"][1:]), ("ids", arrays["ids"] + BUCKETS),
             ("counts", arrays["counts"][1:]), ("logs", arrays["logs"][1:]),
             ("logs", arrays["logs"][:, 1:]), ("cut_off", arrays["cut_off"][1:])]  # fmt: skip
    for name, changed in wrong:
        with pytest.raises(ValueError, match="."):  # noqa: RUF043
            Refit.from_arrays(arrays | {name: changed})


def test_no_text_is_remembered():
    learner = Refit()
    learner.learn(learner.predict("the secret of Zanzibar", 9.0)[1], 9)
    kept = b"".join(array.tobytes() for array in learner.arrays().values())
    assert not [word for word in (b"secret", b"Zanzibar", b"zan") if word in kept]


def test_of_what_is_remembered_the_oldest_goes(monkeypatch):
    monkeypatch.setattr(refit, "MOST_ROWS", 100)
    assert len(taught(250)) == 100
    monkeypatch.setattr(refit, "MOST_IDS", 2000)  # n-grams; a prompt here has some fifty
    learner = taught(250)
    assert FIRST <= len(learner) < 60 and learner.arrays()["sizes"].sum() <= 2000


def test_one_thread_may_predict_while_another_learns_and_refits():
    learner, wrong, stop = taught(60), [], threading.Event()
    prompts, _ = traffic(50, 5)

    def predict():
        while not stop.is_set():
            for prompt in prompts:
                tokens, reading = learner.predict(prompt, 50.0)
                if not (1 <= tokens <= 1e6 and np.isfinite(reading.refitted)):
                    wrong.append(tokens)

    thread = threading.Thread(target=predict)
    thread.start()
    for prompt, tokens in zip(*traffic(300, 6), strict=True):
        learner.learn(learner.predict(prompt, 50.0)[1], tokens)
        if learner.due:
            learner.refit()
    stop.set()
    thread.join()
    assert not wrong


def test_a_server_needs_no_scikit_learn_for_it():
    code = ("import sys; sys.modules['sklearn'] = sys.modules['pandas'] = None; "
            "import test_refit; test_refit.taught(60)")  # fmt: skip
    tests = str(refit.__file__).rpartition("/ssjf/")[0] + "/tests"
    subprocess.run([sys.executable, "-c", code], cwd=tests, check=True)


# From a log to a folder


def test_a_log_is_learnt_into_a_folder_that_predicts_better(tmp_path):
    prompts, tokens = traffic(900)
    prompts = [f"{prompt} {i}" for i, prompt in enumerate(prompts)]
    texts, out = Texts(prompts, tokens), tmp_path / "out"
    card = trained(io.read_spec("refit"), "log", out, texts)
    test = np.flatnonzero(texts.splits() == "test")
    asked, refitted = [prompts[i] for i in test], io.load(out)
    shipped, found = (each.predict(asked) for each in (io.load("builtin"), refitted))
    orders = [spearmanr(each.tokens, tokens[test])[0] for each in (shipped, found)]
    assert orders[1] > 0.85 and orders[1] > orders[0] + 0.1
    assert card["test"]["spearman"][0] == pytest.approx(orders[1], abs=1e-3)
    assert 0.6 <= card["test"]["coverage_80"][0] <= 0.95
    assert refitted.predict([]).tokens.size == 0


def test_answers_that_were_cut_off_count_as_longer_in_a_log(tmp_path):
    prompts, tokens = traffic(900)
    prompts = [f"{prompt} {i}" for i, prompt in enumerate(prompts)]
    cut = (tokens > 150) & (np.arange(900) % 2 == 0)
    found = []
    for name, extra in (("with", {"cut_off": cut.astype(float)}), ("without", {})):
        texts = Texts(prompts, np.where(cut, 20, tokens), extra=extra)
        trained(io.read_spec("refit"), "log", tmp_path / name, texts)
        found.append(io.load(tmp_path / name).predict(["tell me the sea moon"]).tokens[0])
    assert found[0] > 1.5 * found[1]


def test_a_refitted_folder_of_another_shipped_proxy_is_refused(tmp_path):
    prompts, tokens = traffic(300)
    texts = Texts([f"{prompt} {i}" for i, prompt in enumerate(prompts)], tokens)
    trained(io.read_spec("refit"), "log", tmp_path / "out", texts)
    path = tmp_path / "out" / io.CARD
    card = json.loads(path.read_text())
    path.write_text(json.dumps(card | {"shipped": "another"}))
    with pytest.raises(InputError, match="another version's shipped proxy; train it again"):
        io.load(tmp_path / "out")


def test_as_served_learns_what_finished_before_the_arrival_and_nothing_else():
    prompts, tokens = traffic(200)
    shipped, at = Fixed(5e3 / tokens), np.arange(200.0)
    in_turn = as_served(prompts, tokens, shipped, at, at + 0.5)
    assert np.array_equal(in_turn, prequential(prompts, tokens, shipped))
    assert np.array_equal(
        as_served(prompts, tokens, shipped, at, at + 7.5), prequential(prompts, tokens, shipped, 7)
    )
    assert np.array_equal(as_served(prompts, tokens, shipped, at, at + 1e3), shipped.tokens)
    late = at + 1e3
    late[50] = 60.5  # finishes before the 50 ahead of it
    found = as_served(prompts, tokens, shipped, at, late)
    changed = np.flatnonzero(found != shipped.tokens)
    assert changed[0] == 61
