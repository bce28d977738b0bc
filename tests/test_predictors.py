"""Predictors without text: each is what it says of the truth, and says what it was not given."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from ssjf.errors import InputError
from ssjf.proxy import known_predictors, predict
from ssjf.request import Requests
from ssjf.workload import synthetic


def workload(tokens, **columns):
    tokens = np.asarray(tokens)
    columns = {name: np.asarray(column, float) for name, column in columns.items()}
    return Requests(np.zeros(len(tokens)), np.ones(len(tokens)), tokens, columns)


def of(spec, tokens, seed=0, **columns):
    return predict(spec, workload(tokens, **columns), np.random.default_rng(seed))


@pytest.fixture(scope="module")
def chat():
    return synthetic.lognormal(30_000, 200, 0.9, np.random.default_rng(1))


def test_the_oracle_is_the_truth():
    assert of("oracle", [3, 1, 7]).tolist() == [3, 1, 7]


@pytest.mark.parametrize(
    "spec", ["oracle", "classes", "noise:0.3", "tau:0.5", "constant", "shuffled", "column:c"]
)
def test_predictions_are_one_float_per_request_and_repeat_by_seed(spec, chat):
    first, again = (of(spec, chat[:500], seed=5, c=chat[:500]) for _ in range(2))
    assert first.dtype == np.float64
    assert first.shape == (500,)
    assert (first == again).all()


def test_classes_are_the_papers_training_labels():
    tokens = [1, 41, 42, 140, 141, 293, 294, 502, 503, 9000]
    assert of("classes", tokens).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert of("classes:10,100", [9, 10, 99, 100]).tolist() == [0, 1, 1, 2]


@settings(deadline=None)
@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=30))
def test_classes_never_contradict_the_truth(tokens):
    order = np.argsort(tokens, kind="stable")
    assert (np.diff(of("classes", tokens)[order]) >= 0).all()


def test_an_error_is_of_so_many_tokens(chat):
    error = of("error:90", chat) - chat
    assert error.mean() == pytest.approx(0, abs=3) and error.std() == pytest.approx(90, rel=0.05)
    assert np.abs(error).mean() == pytest.approx(90 / np.sqrt(2), rel=0.05), "Laplace's"


def test_noise_is_log_normal_around_the_truth(chat):
    error = np.log(of("noise:0.4", chat) / chat)
    assert error.mean() == pytest.approx(0, abs=0.01)
    assert error.std() == pytest.approx(0.4, rel=0.02)
    assert (of("noise:0", chat) == chat).all()


@pytest.mark.parametrize("n", [50, 2_000, 30_000])
@pytest.mark.parametrize("target", [0.1, 0.4, 0.635, 0.9])
def test_tau_is_what_was_asked_for(n, target, chat):
    tau = kendalltau(of(f"tau:{target}", chat[:n], seed=n), chat[:n]).statistic
    # Above 20,000 requests tau is tuned on a sample: a few standard errors of it remain.
    assert tau == pytest.approx(target, abs=0.005 if n <= 20_000 else 0.012)


def test_tau_1_is_the_truth_and_0_needs_no_luck(chat):
    assert (of("tau:1", chat[:100]) == chat[:100]).all()
    for seed in range(5):
        prediction = of("tau:0.02", chat[:300], seed)
        assert kendalltau(prediction, chat[:300]).statistic == pytest.approx(0.02, abs=0.005)


def test_tau_out_of_reach_names_the_nearest():
    with pytest.raises(InputError, match=r"cannot be reached on these 3 requests; the nearest is"):
        of("tau:0.5", [1, 2, 3])


def test_constant_and_shuffled_know_nothing(chat):
    assert of("constant", [1, 2, 6]).tolist() == [3, 3, 3]
    shuffled = of("shuffled", chat)
    assert (np.sort(shuffled) == np.sort(chat)).all()
    assert abs(kendalltau(shuffled, chat).statistic) < 0.02


def test_columns_are_taken_and_classes_decoded_to_their_means():
    ids = [0, 2, 0, 2, 1]
    assert of("column:c", [1, 2, 3, 4, 5], c=ids).tolist() == ids
    assert of("class-mean:c", [1, 2, 3, 4, 5], c=ids).tolist() == [2, 3, 2, 3, 5]


def test_a_prediction_is_a_copy_of_its_column():
    requests = workload([1, 2], c=[0, 1])
    predict("column:c", requests, np.random.default_rng(0))[:] = 9
    assert requests.predictions["c"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("magic", "unknown predictor 'magic'; known: class-mean:NAME, classes,"),
        ("", "unknown predictor ''"),
        ("oracle:1", "oracle takes no value"),
        ("noise", "'noise' lacks its value; its form is noise:SIGMA"),
        ("tau:", "'tau:' lacks its value; its form is tau:TAU"),
        ("classes:", "its form is classes or classes:T1,T2"),
        ("classes:5,x", "'x' is not a number of at least 0"),
        ("classes:5,5", "the thresholds must increase"),
        ("noise:-1", "'-1' is not a number from 0 to 100"),
        ("noise:nan", "'nan' is not a number"),
        ("tau:1.2", "'1.2' is not a number from 0 to 1"),
        ("column:d", "unknown prediction column 'd'; known: c, half, holed"),
        ("column:holed", "'holed' holds values that are not finite"),
        ("class-mean:half", "'half' is not of class ids"),
    ],
)
def test_what_is_wrong_is_said(spec, message):
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        of(spec, [1, 2, 3], c=[0, 1, 2], half=[0.5, 1, 1], holed=[1, np.nan, 2])


def test_a_workload_without_columns_or_requests_says_so():
    with pytest.raises(InputError, match=r"known: \(none\)"):
        of("column:c", [1, 2])
    with pytest.raises(InputError, match="no requests"):
        of("oracle", [])


def test_every_known_form_is_taken():
    values = {"T1,T2,…": "2,3", "SIGMA": "0.1", "TOKENS": "9", "TAU": "1", "NAME": "c"}
    for form in known_predictors():
        name, _, value = form.partition(":")
        spec = f"{name}:{values[value]}" if value else name
        assert len(of(spec, [1, 2, 3], c=[0, 1, 1])) == 3
