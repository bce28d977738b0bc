"""Heads: losses against their definitions, decoding against what it should invert."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, rankdata

from ssjf.proxy.base import LEVELS, fit_residuals
from ssjf.proxy.encoder.heads import (
    HEADS,
    RANKERS,
    expected,
    ranked,
    scale_of,
)
from ssjf.proxy.encoder.network import LEAST_RATIO, LOSSES, MARGIN

RNG = np.random.default_rng(7)
LENGTHS = RNG.integers(1, 900, 400)
DRAWS = np.log(np.stack([LENGTHS, np.maximum(LENGTHS + RNG.integers(-9, 9, 400), 1)], axis=1))
SCALE = scale_of(DRAWS, np.array([25.0, 50.0, 75.0, 99.0]))


def loss(head, out, draws=DRAWS, scale=SCALE):
    out = torch.tensor(np.asarray(out), dtype=torch.float64, requires_grad=True)
    return LOSSES[head](out, torch.tensor(draws, dtype=torch.float64), scale), out


def classes(tokens, scale=SCALE):
    return np.searchsorted(scale.edges, tokens, side="right")


def standard(draws=DRAWS):
    return (draws - SCALE.log[0]) / SCALE.log[1]


def test_the_scale_is_that_of_the_lengths_it_was_given():
    lengths = np.rint(np.exp(DRAWS)).ravel()
    assert SCALE.tokens == pytest.approx([lengths.mean(), lengths.std()])
    assert SCALE.log == pytest.approx([DRAWS.mean(), DRAWS.std()])
    assert np.percentile(lengths, [25, 50, 75, 99]) == pytest.approx(SCALE.edges)
    ids = classes(lengths)
    for k, mean in enumerate(SCALE.class_means):
        assert mean == pytest.approx(lengths[ids == k].mean())
    assert (classes(SCALE.class_means) == np.arange(5)).all(), "a mean lies in its class"


def test_lengths_that_are_all_alike_make_one_class():
    scale = scale_of(np.full((9, 1), np.log(42.0)), np.array([25.0, 50.0]))
    assert scale.class_means.tolist() == [42.0] and len(scale.edges) == 0


@pytest.mark.parametrize("head", ["l1", "mse", "log-mse"])
def test_regression_is_right_where_it_says_the_truth(head):
    single = DRAWS[:, :1]
    truth = np.exp(single) if head in ("l1", "mse") else single
    place, width = SCALE.tokens if head in ("l1", "mse") else SCALE.log
    out = (truth - place) / width
    assert loss(head, out, single)[0].item() == pytest.approx(0, abs=1e-9)
    assert HEADS[head].decode(out, SCALE, "argmax").logs == pytest.approx(single[:, 0])
    worse = loss(head, out + 0.5, single)[0].item()
    assert worse == pytest.approx(0.5 if head.endswith("l1") else 0.25)


def test_the_likeliest_class_is_decoded_to_its_mean_and_all_classes_to_the_expected_length():
    shares = np.array([[0.5, 0.1, 0.1, 0.1, 0.2], [0.0, 0.0, 1.0, 0.0, 0.0]])
    out = np.log(np.maximum(shares, 1e-12))
    decoded = [
        np.exp(HEADS["5-class"].decode(out, SCALE, how).logs) for how in ("argmax", "expected")
    ]
    assert decoded[0] == pytest.approx(SCALE.class_means[[0, 2]])
    assert decoded[1] == pytest.approx(shares @ SCALE.class_means)


def test_the_loss_of_classes_is_the_negative_log_likelihood():
    out = RNG.normal(size=(400, 5))
    likely = out - np.log(np.exp(out).sum(axis=1, keepdims=True))
    ids = classes(np.rint(np.exp(DRAWS)))
    slow = -np.mean([likely[i, ids[i, j]] for i in range(400) for j in range(2)])
    assert loss("5-class", out)[0].item() == pytest.approx(slow)


def test_lengths_at_a_class_edge_belong_to_the_class_above():
    scale = scale_of(np.log(np.arange(1.0, 101.0))[:, None], np.array([50.0]))
    edge = int(np.ceil(scale.edges[0]))
    out = np.array([[0.0, 50.0]])  # sure of the upper class
    at_edge = loss("3-class", out, np.log([[float(edge)]]), scale)[0].item()
    below = loss("3-class", out, np.log([[float(edge - 1)]]), scale)[0].item()
    assert at_edge == pytest.approx(0) and below == pytest.approx(50)


@pytest.mark.parametrize("head, power", [("ordinal-l1", 1), ("ordinal-mse", 2)])
def test_ordinal_heads_regress_the_class_id_and_round(head, power):
    ids = classes(np.rint(np.exp(DRAWS)))
    out = RNG.normal(2, 1, (400, 1))
    assert loss(head, out)[0].item() == pytest.approx((abs(out - ids) ** power).mean())
    logs = HEADS[head].decode(np.array([[-3.0], [1.4], [1.6], [99.0]]), SCALE, "argmax").logs
    assert np.exp(logs) == pytest.approx(SCALE.class_means[[0, 1, 2, 4]])


def test_listmle_is_the_likelihood_of_the_true_order():
    out = RNG.normal(size=(30, 1))
    order = np.argsort(-DRAWS[:30].mean(axis=1), kind="stable")
    score = out[order, 0]
    slow = np.mean([np.log(np.exp(score[i:]).sum()) - score[i] for i in range(30)])
    draws = DRAWS[:30] + 1e-9 * np.arange(30)[:, None]  # no ties
    assert loss("listmle", out, draws)[0].item() == pytest.approx(slow)


def test_the_margin_loss_is_the_mean_hinge_over_pairs_that_differ():
    out, logs = RNG.normal(size=(40, 1)), DRAWS[:40].mean(axis=1)
    pairs = [
        (i, j) for i in range(40) for j in range(40) if logs[i] - logs[j] >= np.log(LEAST_RATIO)
    ]
    slow = np.mean([max(0, MARGIN - (out[i, 0] - out[j, 0])) for i, j in pairs])
    assert loss("pairwise", out, DRAWS[:40])[0].item() == pytest.approx(slow)
    apart = 1e6 * logs[:, None]
    assert loss("pairwise", apart, DRAWS[:40])[0].item() == 0


def test_a_batch_in_which_no_pair_differs_has_no_margin_loss():
    found, out = loss("pairwise", np.ones((4, 1)), np.full((4, 1), 3.0))
    found.backward()
    assert found.item() == 0 and torch.isfinite(out.grad).all()


def pinball_loss(truth, quantiles, levels):
    """The mean loss of each level (Koenker & Bassett 1978), by its definition."""
    short = truth[:, None] - quantiles
    return np.where(short > 0, short * levels, short * (np.array(levels) - 1)).mean(axis=0)


def test_the_quantile_loss_is_the_pinball_loss():
    out = RNG.normal(size=(400, len(LEVELS)))
    y = standard()
    slow = np.mean([pinball_loss(y[:, j], out, LEVELS).mean() for j in range(2)])
    assert loss("quantiles", out)[0].item() == pytest.approx(4 * slow)


def test_quantiles_rise_and_the_mean_is_among_them():
    out = RNG.normal(size=(50, len(LEVELS)))
    decoded = HEADS["quantiles"].decode(out, SCALE, "argmax")
    assert (np.diff(decoded.levels, axis=1) >= 0).all()
    assert (decoded.levels[:, 0] <= decoded.logs).all()
    assert (decoded.logs <= decoded.levels[:, -1]).all()


def test_the_expected_length_is_that_of_a_uniform_and_of_a_point():
    width = np.array([[level * 100 for level in LEVELS]])
    assert expected(width) == pytest.approx([50.0])  # the ends, cut off alike, cancel out
    assert expected(np.full((1, len(LEVELS)), 7.0)) == pytest.approx([7.0])


@given(st.lists(st.floats(-50, 50), min_size=3, max_size=60, unique=True))
def test_a_ranker_s_lengths_keep_its_order(scores):
    scores = np.array(scores)
    logs = np.log(RNG.integers(1, 500, len(scores)).astype(float))
    scale = ranked(SCALE, scores, logs)
    for head in RANKERS:
        beyond = np.concatenate([scores, [scores.min() - 3, scores.max() + 3]])
        said = HEADS[head].decode(beyond[:, None], scale, "argmax").logs
        # Scores nearer than that may round together.
        apart = np.abs(np.subtract.outer(beyond, beyond)) > 1e-6 * max(1, np.ptp(beyond))
        ranks, found = rankdata(beyond), rankdata(said)
        wrong = np.sign(np.subtract.outer(ranks, ranks)) != np.sign(np.subtract.outer(found, found))
        assert not (wrong & apart).any()


def test_scores_that_are_all_alike_leave_the_map_as_it_was():
    assert ranked(SCALE, np.ones(9), np.arange(1.0, 10.0)) is SCALE


def test_conformal_residuals_cover_what_quantiles_miss():
    """Quantiles far too narrow come out right on rows of the same kind that it has not seen."""
    rng = np.random.default_rng(0)
    middle = rng.normal(4, 0.5, 8000)
    truth = middle + rng.normal(0, 0.6, 8000)
    narrow = middle[:, None] + 0.1 * norm.ppf(LEVELS)
    fitted = fit_residuals(middle[:4000], truth[:4000, None], 5, narrow[:4000])
    found = fitted.quantiles(middle[4000:], narrow[4000:])
    inside = (found[:, 1] <= np.exp(truth[4000:])) & (np.exp(truth[4000:]) <= found[:, 5])
    assert abs(inside.mean() - 0.8) < 0.03
