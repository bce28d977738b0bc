"""Drift: what a calibrator may know, what it cannot change, and where it can."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest

from ssjf.engine.profile import profile
from ssjf.engine.server import Server
from ssjf.engine.simulator import simulate
from ssjf.errors import InputError
from ssjf.policy import policy
from ssjf.proxy.calibration import Calibrator
from ssjf.request import Completions, Requests
from ssjf.study import drift, experiments, plots
from ssjf.study.drift_calibration import calibrated_by_passes, corrected
from ssjf.study.execute import execute

matplotlib.use("Agg")
OPTIONS = {"window": 50, "method": "isotonic", "every": 1, "passes": 2}


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.setenv("SSJF_ROOT", str(Path(__file__).resolve().parents[1]))


def spec(series="ssjf", scenario="shift", slots=1, workload=0, **changes):
    """A committed run's specification, or one like it."""
    found = [
        each
        for each in experiments.experiment("drift").specs()
        if (each["series"], each["scenario"], each["slots"]) == (series, scenario, slots)
    ]
    return found[workload] | changes


def fewer(given, requests=4000, seeds=(0,)):
    return given | {"workload": given["workload"] | {"requests": requests, "seeds": list(seeds)}}


def finished(output, finish, gap=1.0):
    """A run with these finish times; a request arrives every ``gap`` seconds."""
    n = len(output)
    requests = Requests(gap * np.arange(n), np.ones(n, np.int64), np.asarray(output))
    stamps = np.asarray(finish, np.float64)
    return Completions(requests, stamps, stamps, stamps, np.zeros(n, np.int64))


# What a calibrator may know


def test_nothing_that_finishes_later_is_known():
    """Other lengths of what has not finished by an arrival change no prediction up to there."""
    rng = np.random.default_rng(0)
    n, predicted = 400, np.exp(rng.normal(5, 1, 400))
    output, finish = rng.integers(1, 900, n), np.arange(n) + rng.exponential(40, n)
    before = corrected(predicted, np.zeros(n, np.int64), finished(output, finish), OPTIONS)
    at = 250
    changed = np.where(finish > at, 7, output)
    after = corrected(predicted, np.zeros(n, np.int64), finished(changed, finish), OPTIONS)
    assert np.array_equal(before[: at + 1], after[: at + 1])
    assert not np.allclose(before[at + 1 :], after[at + 1 :])


def test_all_that_has_finished_is_known():
    """The last request is corrected as by a calibrator that saw the others in order of finish."""
    rng = np.random.default_rng(1)
    n, predicted = 120, np.exp(rng.normal(5, 1, 120))
    output, finish = rng.integers(1, 900, n), rng.permutation(n) / 2.0
    found = corrected(predicted, np.zeros(n, np.int64), finished(output, finish), OPTIONS)
    online = Calibrator(50)
    for i in np.argsort(finish):
        online.observe(predicted[i], output[i])
    assert found[-1] == online.calibrate(predicted[-1])


def test_before_anything_has_finished_predictions_are_as_they_are():
    predicted = np.array([5.0, 9.0, 2.0] * 20)
    found = corrected(predicted, np.zeros(60, np.int64), finished([9] * 60, [1e6] * 60), OPTIONS)
    assert np.array_equal(found, predicted)


def test_each_group_learns_from_its_own():
    """Two LLMs, one three times as long as predicted and one a third."""
    rng = np.random.default_rng(2)
    n, predicted = 2000, np.exp(rng.normal(5, 0.5, 2000))
    llm = rng.integers(0, 2, n)
    output = np.maximum(1, np.rint(predicted * np.where(llm, 3, 1 / 3))).astype(np.int64)
    run = finished(output, np.arange(n) + 0.5)
    own, common = (
        corrected(predicted, groups, run, OPTIONS) for groups in (llm, np.zeros_like(llm))
    )
    error = [abs(np.log(found[500:] / output[500:])).mean() for found in (own, common)]
    assert error[0] < 0.1 < 0.8 < error[1]


def test_passes_start_from_what_is_predicted():
    predicted = np.array([3.0, 1.0, 2.0])
    served = []

    def serve(lengths):
        served.append(lengths)
        return finished([3, 1, 2], [1.0, 2.0, 3.0])

    found, runs = calibrated_by_passes(predicted, np.zeros(3, np.int64), serve, OPTIONS)
    assert len(runs) == len(served) == 3 and served[0] is predicted and served[2] is found


# What it cannot change


@pytest.mark.parametrize("slots", [1, 4])
def test_a_monotone_calibration_leaves_the_run_of_ssjf_as_it_is(slots):
    """Corrected alike, the very same finish times; ageing reads the lengths, so its run changes."""
    rng = np.random.default_rng(3)
    n, output = 1500, np.maximum(1, np.rint(np.exp(rng.normal(4.5, 1, 1500)))).astype(np.int64)
    predicted = 3 * output**0.6 * np.exp(rng.normal(0, 0.5, n))
    online = Calibrator(1000)
    for i in range(n):
        online.observe(predicted[i], output[i])
    after = online.calibrate(predicted)
    model, server = profile("ssjf-paper"), Server(slots=slots, token_budget=10**6)
    gaps = rng.exponential(model.alone_seconds(1, output).mean() / slots / 0.9, n)
    requests = Requests(np.cumsum(gaps), np.ones(n, np.int64), output)

    def finish(name, lengths):
        return simulate(requests, policy(name), model, server, lengths).finished_at

    assert abs(np.log(after / output)).mean() < 0.8 * abs(np.log(predicted / output)).mean()
    assert np.array_equal(finish("ssjf", predicted), finish("ssjf", after))
    assert not np.array_equal(finish("ssjf-aged:5", predicted), finish("ssjf-aged:5", after))


# The runs


def test_the_load_is_the_same_in_both_halves():
    given = fewer(spec(), 40_000)
    pool = drift._pool(given["workload"]["first"], given["workload"]["second"])
    prompts, llm = drift._drawn(given, pool, 0)
    model = profile(given["profile"])
    requests = drift._arriving(given, pool.output_tokens[llm, prompts], llm, model, 0)
    alone = model.alone_seconds(requests.prompt_tokens, requests.output_tokens)
    for half in (slice(0, 20_000), slice(20_000, None)):
        span = np.ptp(requests.arrived_at[half])
        assert alone[half].sum() / span / given["slots"] == pytest.approx(0.9, rel=0.03)
    assert np.array_equal(llm, np.repeat([0, 1], 20_000))


def test_policies_serve_the_same_requests():
    given = [fewer(spec(series)) for series in ("fcfs", "ssjf", "ssjf+common")]
    rows = [drift.measured(each).iloc[0] for each in given]
    assert rows[0]["log_error_before"] == rows[1]["log_error_before"] != rows[2]["log_error_before"]
    assert rows[0]["pass_change"] == rows[1]["pass_change"] == 0


def test_both_llms_come_as_often_where_they_share_the_queue():
    given = fewer(spec(scenario="tenants"), 10_000)
    pool = drift._pool(given["workload"]["first"], given["workload"]["second"])
    llm = drift._drawn(given, pool, 0)[1]
    assert 0.47 < llm.mean() < 0.53 and np.count_nonzero(np.diff(llm)) > 4000


def test_a_predictor_per_llm_is_the_stale_one_before_the_change():
    one, own = (drift.measured(fewer(spec(each))).iloc[0] for each in ("ssjf", "ssjf+own"))
    assert one["log_error_before"] == own["log_error_before"]
    assert one["log_error_after"] > own["log_error_after"] + 0.5


@pytest.mark.parametrize("series", ["ssjf", "ssjf-aged+per-llm"])
def test_a_committed_run_comes_out_again(series):
    """Of its first seed, by the one way there is to run it."""
    given = spec(series, slots=8)
    stored = experiments.rows("drift", lambda each: each["series"] == series and each == given)
    again = execute(given | {"workload": given["workload"] | {"seeds": [0]}})
    for name in again.columns:
        assert again[name].iloc[0] == pytest.approx(stored[name].iloc[0], rel=1e-5), name


def test_names_that_nobody_knows_are_refused():
    with pytest.raises(InputError, match="unknown scenario 'storm'; known: shift, tenants"):
        drift.measured(fewer(spec(scenario="shift")) | {"scenario": "storm"})
    with pytest.raises(InputError, match="unknown calibration of 'all'; known: common, per-llm"):
        drift.measured(fewer(spec(calibrated="all")))
    given = spec()
    with pytest.raises(InputError, match="unknown LLM 'gpt-9'; known: Meta-Llama"):
        drift.measured(given | {"workload": given["workload"] | {"first": "gpt-9"}})


# What the committed runs say


@pytest.fixture(scope="module")
def committed():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSJF_ROOT", str(Path(__file__).resolve().parents[1]))
        runs = experiments.rows("drift")
    return runs, plots.drift_estimates(runs)


def test_calibration_repairs_the_lengths_and_hardly_the_order(committed):
    """The negative result: the error halves, the mean JCT of SSJF stays within a few percent."""
    runs, estimates = committed
    shift = estimates[(estimates["scenario"] == "shift") & (estimates["series"] == "ssjf+common")]
    assert shift["against"].abs().max() < 2 and len(shift) == 6
    errors = runs[runs["scenario"] == "shift"].groupby("series")["log_error_settled"].mean()
    assert errors["ssjf+common"] < 0.6 * errors["ssjf"]


def test_a_calibrator_per_llm_orders_two_llms_and_one_for_both_does_not(committed):
    _, estimates = committed
    apart = estimates["workload"].str.contains("alpaca") & (estimates["scenario"] == "tenants")
    low = estimates[apart].set_index(["series", "slots", "workload"])["against_low"]
    high = estimates[apart].set_index(["series", "slots", "workload"])["against_high"]
    assert low["ssjf+per-llm"].min() > 8 and high["ssjf+common"].max() < 1


def test_the_passes_had_settled(committed):
    assert committed[0]["pass_change"].max() < 1


def test_estimates_compare_with_the_same_policy_as_predicted(committed):
    _, estimates = committed
    plain = estimates[estimates["series"].isin(["ssjf", "ssjf-aged", "sjf"])]
    assert (plain["against"] == 0).all()
    assert np.allclose(estimates[estimates["series"] == "sjf"]["share"], 100)


def test_the_figures_and_the_table(committed):
    runs, estimates = committed
    gain, course = plots.drift_gain(estimates), plots.drift_course(runs, "drift")
    assert gain.get_figwidth() == course.get_figwidth() == 7
    assert "share of the oracle's gain (%)" in gain.axes[0].get_ylabel()
    assert course.axes[0].get_xlabel() == "requests since the change"
    table = plots.drift_table(runs, estimates)
    assert len(table) == 12 * 9 and table.notna().all(axis=None)
    assert {"SJF (oracle)", "SSJF", "SSJF, aged"} == set(table["policy"])
