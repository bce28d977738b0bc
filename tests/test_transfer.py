"""Transfer between LLMs: correlations against slow references, honest folds, committed numbers."""

import os
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.stats import kendalltau, spearmanr

from commands import refused, ssjf
from ssjf.errors import InputError
from ssjf.proxy.baselines_config import TfidfRidgeConfig
from ssjf.study import experiments, llm_lengths, plots, runner, schema, store, transfer
from ssjf.study.correlations import Kendall, spearman, spearman_in_folds
from ssjf.study.plots.transfer import short, symmetric
from ssjf.study.plots.transfer_curves import few_shot_estimates
from ssjf.study.transfer_few_shot import few_shot, standardised
from ssjf.study.transfer_learned import folds, out_of_fold, ridge

matplotlib.use("Agg")
BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
CONFIG = TfidfRidgeConfig(least_prompts=1)


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.setenv("SSJF_ROOT", str(Path(__file__).resolve().parents[1]))


@pytest.fixture
def data(monkeypatch):
    folder = Path(os.environ.get("SSJF_DATA", BESIDE))
    if not (folder / "multi_llm").is_dir():
        pytest.skip(f"needs the lengths of many LLMs: SSJF_DATA is unset and {BESIDE} is not there")
    monkeypatch.setenv("SSJF_DATA", str(folder))


@pytest.fixture
def no_data(tmp_path, monkeypatch):
    monkeypatch.setenv("SSJF_DATA", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


# Correlations

tables = st.integers(3, 25).flatmap(
    lambda n: st.lists(st.lists(st.integers(0, 5), min_size=n, max_size=n), min_size=2, max_size=4)
)


@settings(max_examples=60, deadline=None)
@given(tables)
def test_correlations_are_those_of_scipy(columns):
    values = np.array(columns, np.float64).T
    rho, tau = spearman(values, values), Kendall(values).tau()
    for i, j in np.ndindex(rho.shape):
        if np.ptp(values[:, i]) and np.ptp(values[:, j]):
            one, other = values[:, i], values[:, j]
            assert rho[i, j] == pytest.approx(spearmanr(one, other).statistic, abs=1e-9)
            assert tau[i, j] == pytest.approx(kendalltau(one, other).statistic, abs=1e-6)
        else:
            assert np.isnan(rho[i, j]) and np.isnan(tau[i, j])


def test_kendall_of_weights_is_that_of_the_resampled_rows():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 3)).round(1)
    for _ in range(5):
        rows = rng.integers(0, 60, 60)
        found = Kendall(values).tau(np.bincount(rows, minlength=60))
        assert np.allclose(found, Kendall(values[rows]).tau(), atol=1e-6)


def test_kendall_goes_through_the_pairs_in_parts(monkeypatch):
    values = np.random.default_rng(1).normal(size=(40, 3))
    whole = Kendall(values).tau()
    monkeypatch.setattr("ssjf.study.correlations.CHUNK", 7)
    assert np.allclose(Kendall(values).tau(), whole)


def test_within_folds_a_shift_of_one_fold_does_not_matter():
    rng = np.random.default_rng(2)
    a, fold = rng.normal(size=(90, 2)), np.arange(90) % 3
    b = a + rng.normal(size=(90, 2))
    shifted = a + np.where(fold == 1, 50, 0)[:, None]
    assert np.allclose(spearman_in_folds(shifted, b, fold), spearman_in_folds(a, b, fold))
    assert not np.allclose(spearman(shifted, b), spearman(a, b))


# Learned transfer


def test_ridge_for_all_is_that_of_scikit_learn_for_each():
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(3)
    x, asked = (csr_matrix(rng.random((n, 30)) * (rng.random((n, 30)) < 0.3)) for n in (25, 9))
    y = rng.normal(5, 1, (25, 4))
    found = ridge(x, y, asked, 0.7)
    for column in range(4):
        model = Ridge(alpha=0.7, solver="cholesky").fit(x.toarray(), y[:, column])
        assert np.allclose(found[:, column], model.predict(asked.toarray()))


def asked_words(n=300, seed=0):
    rng = np.random.default_rng(seed)
    size = rng.integers(0, 3, n)
    words = np.array(["tiny", "middling", "huge"])[size]
    prompts = [f"a {word} text on topic {i % 17}" for i, word in enumerate(words)]
    return prompts, (3 + size + rng.normal(0, 0.2, n))[:, None] + np.array([[0.0, 1.5]])


def test_a_planted_rule_transfers_between_llms_that_share_it():
    prompts, logs = asked_words()
    logs[:, 1] *= -1  # this LLM writes least where the other writes most
    fold = folds(len(prompts), 5, 0)
    across = spearman_in_folds(out_of_fold(prompts, logs, fold, CONFIG), logs, fold)
    assert across[0, 0] > 0.85 and across[1, 1] > 0.85
    assert across[0, 1] < -0.85 and across[1, 0] < -0.85


def test_a_prompt_is_predicted_without_its_fold():
    prompts, logs = asked_words()
    fold = folds(len(prompts), 5, 0)
    before = out_of_fold(prompts, logs, fold, CONFIG)
    logs[fold == 2] = 99
    after = out_of_fold(prompts, logs, fold, CONFIG)
    assert np.array_equal(before[fold == 2], after[fold == 2])
    assert not np.allclose(before[fold != 2], after[fold != 2])


def test_folds_are_even_and_seeded():
    assert np.ptp(np.bincount(folds(772, 5, 0))) <= 1
    assert np.array_equal(folds(50, 5, 1), folds(50, 5, 1))
    assert not np.array_equal(folds(50, 5, 1), folds(50, 5, 2))


# Few examples


def shots(examples, logs, prompts, predicted, draws=3):
    return pd.DataFrame(few_shot(prompts, predicted, logs, examples, draws, 0))


@pytest.fixture(scope="module")
def corrected():
    """A predictor that is wrong by a factor and knows nothing of how questions are answered."""
    rng = np.random.default_rng(4)
    predicted = rng.normal(5, 0.7, 400)
    question = rng.random(400) < 0.5
    prompts = ["Is it?" if asks else "It is" for asks in question]
    logs = predicted + np.log(3) - 1.0 * question + rng.normal(0, 0.3, 400)
    return shots([0, 5, 30, 200], logs[:, None], prompts, predicted)


def test_a_monotone_map_cannot_change_the_rank(corrected):
    kept = corrected[corrected["method"].isin(["as it is", "factor", "isotonic"])]
    assert (kept.groupby("draw")["spearman"].agg(np.ptp) < 1e-12).all()
    assert set(kept["k"]) == {0, 5, 30, 200}


def test_a_factor_is_learned_from_few_and_a_rule_from_many(corrected):
    error = corrected.groupby(["k", "method"])["mae_log"].mean()
    rank = corrected.groupby(["k", "method"])["spearman"].mean()
    assert error[0, "as it is"] > 0.6 > error[30, "factor"]
    assert error[200, "ridge"] < 0.3 < 0.4 < error[200, "factor"]
    assert rank[200, "ridge"] > rank[0, "as it is"] + 0.1


def test_the_test_prompts_are_the_same_for_every_k(corrected):
    """And no example is among them: with more examples of a draw, the same rank."""
    as_it_is = corrected[corrected["method"] == "as it is"].set_index("draw")["spearman"]
    factor = corrected[corrected["method"] == "factor"]
    assert np.allclose(factor["spearman"], as_it_is.loc[factor["draw"]])
    assert as_it_is.nunique() == 3


def test_features_need_no_lengths_and_no_variety():
    found = standardised(["a", "b"], np.array([1.0, 1.0]))
    assert found.shape == (2, 5) and np.all(found == 0)


# What is committed


@pytest.fixture(scope="module")
def committed():
    names = ("agreement", "learned", "builtin", "few-shot")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSJF_ROOT", str(Path(__file__).resolve().parents[1]))
        return {name: plots.measured("transfer", name) for name in names}


def test_summaries_are_those_of_the_pairs(committed):
    rows = committed["agreement"]
    for quantity in ("spearman", "kendall"):
        part = rows[rows["quantity"] == quantity]
        summary = part[part["of"] == "all"].set_index("llm")["value"]
        pairs = part[~part["of"].isin(["all", "listed"])]["value"]
        assert len(pairs) == 225 * 224 / 2 and pairs.between(-1, 1).all()
        for level in (0.05, 0.5, 0.95):
            assert summary[f"q{level:g}"] == pytest.approx(pairs.quantile(level), abs=1e-4)


@pytest.mark.parametrize("name", ["agreement", "learned", "builtin"])
def test_intervals_hold_their_values(committed, name):
    rows = committed[name].dropna(subset=["low"])
    assert (rows["low"] <= rows["high"]).all() and len(rows)
    assert (rows["low"] - 0.02 <= rows["value"]).all() and (
        rows["value"] <= rows["high"] + 0.02
    ).all()


def test_the_loss_is_against_the_llm_s_own_predictor(committed):
    rows = committed["learned"].set_index(["quantity", "of", "llm"])["value"]
    llms = plots.listed_llms("transfer")
    for of, llm in [(llms[0], llms[5]), (llms[9], llms[2])]:
        own = rows["spearman", llm, llm]
        assert rows["loss", of, llm] == pytest.approx(own - rows["spearman", of, llm], abs=1e-5)


def test_the_listed_llms_are_24_and_there(committed):
    llms = plots.listed_llms("transfer")
    assert len(set(llms)) == 24 and set(llms) <= set(committed["builtin"]["llm"])
    assert not [llm for llm in llms if llm.endswith(("_concise", "_verbose"))]


def test_it_is_small_and_holds_no_text(committed):
    folder = store.run_folder(experiments.experiment("transfer").specs()[0]).parent
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 1.5e6
    known = set(committed["agreement"]["of"]) | set(committed["agreement"]["llm"])
    assert set(committed["few-shot"]["llm"]) <= known


def test_the_committed_numbers_come_from_the_data(data, committed):
    """The measure done again (with fewer resamples, which no value depends on)."""
    spec = next(s for s in experiments.experiment("transfer").specs() if s["series"] == "learned")
    again = transfer.measured(spec | {"resamples": 2})
    assert np.allclose(again["value"], committed["learned"]["value"], atol=1e-4)
    found = llm_lengths.load()
    assert found.output_tokens.shape == (772, 225) and found.output_tokens.min() >= 1


# Without the data


def test_without_the_data_it_is_refused_in_one_sentence(no_data, tmp_path, monkeypatch):
    monkeypatch.setenv("SSJF_RESULTS", str(tmp_path / "results"))
    message = refused("run", "transfer", "--jobs", 1)
    assert "the lengths of many LLMs are not here: no alpaca_eval_prompts.parquet" in message


def test_without_the_data_its_runs_are_not_done_again(no_data):
    done = ssjf("run", "transfer", "--again", "--jobs", 1)
    assert done.exit_code == 0, done.output
    assert done.stdout == "transfer: 0 runs differ from the stored ones\n"
    line = next(line for line in done.stderr.splitlines() if "left out" in line)
    runs = len(experiments.experiment("transfer").specs())
    assert line.startswith(f"transfer: {runs} runs left out: no alpaca_eval_prompts.parquet and ")


def test_others_are_done_again_without_the_data(no_data):
    specs = [spec for name in ("transfer", "jobs") for spec in experiments.experiment(name).specs()]
    left = runner._with_data(specs)
    assert left == experiments.experiment("jobs").specs()


def test_an_unknown_measure_or_llm_lists_the_known(data):
    spec = experiments.experiment("transfer").specs()[0]
    with pytest.raises(InputError, match="unknown measure 'magic'; known: agreement, builtin"):
        transfer.measured(spec | {"measure": "magic"})
    with pytest.raises(InputError, match=r"unknown LLM 'gpt-9'; known: .*gpt-4o"):
        llm_lengths.load().at(["gpt-9"])


def test_a_file_that_was_edited_is_refused(tmp_path, monkeypatch):
    for name in llm_lengths.FILES:
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setenv("SSJF_DATA", str(tmp_path))
    with pytest.raises(InputError, match="is not the file it should be"):
        llm_lengths.load()


ROWS = pd.DataFrame({"llm": ["a", "b"], "value": [0.5, np.nan]})


def test_measurements_are_names_and_numbers():
    schema.check_rows(ROWS, "measurements", "here")
    schema.check_rows(ROWS.assign(value=[-3, 4]), "measurements", "here")
    for bad in (ROWS.assign(llm=["a", ""]), ROWS.assign(value=[np.inf, 1]), ROWS[:0],
                ROWS.assign(llm=["a", None])):  # fmt: skip
        with pytest.raises(InputError, match="rows of here"):
            schema.check_rows(bad, "measurements", "here")


# Plots


def pairs_of(values, llms):
    return pd.DataFrame(
        {"quantity": "spearman", "of": llms[i], "llm": llms[j], "value": values[i, j]}
        for i, j in zip(*np.triu_indices(len(llms), 1), strict=True)
    )


def test_the_order_of_the_map_puts_clusters_together():
    group = np.array([0, 1, 0, 1, 0, 1])
    values = np.where(group[:, None] == group, 0.8, 0.3)
    llms = [*"abcdef"]
    ordered = plots.by_likeness(pairs_of(values, llms), llms)
    places = [group[llms.index(llm)] for llm in ordered]
    assert np.count_nonzero(np.diff(places)) == 1


def test_a_map_is_symmetric_with_an_empty_diagonal(committed):
    grid = symmetric(committed["agreement"], plots.listed_llms("transfer")).to_numpy(copy=True)
    assert np.isnan(np.diag(grid)).all()
    np.fill_diagonal(grid, 1)
    assert np.array_equal(grid, grid.T) and np.isfinite(grid).all()


def test_names_are_short_and_still_different():
    names = plots.listed_llms("transfer")
    assert len({short(name) for name in names}) == len(names)
    assert short("claude-3-5-sonnet-20240620") == "claude-3-5-sonnet"
    assert short("Meta-Llama-3.1-405B-Instruct-Turbo") == "Meta-Llama-3.1-405B"
    assert short("gpt-4o-2024-05-13") == "gpt-4o"


def test_the_figures_name_their_axes(committed):
    llms = plots.listed_llms("transfer")
    drawn = {
        "ρ of two LLMs": plots.likeness_map(committed["agreement"], llms),
        "requests answered by": plots.learned_map(committed["learned"], llms),
        "predicted and true": plots.shipped_dots(committed["builtin"], committed["learned"], llms),
        "examples of the new": plots.few_shot(committed["few-shot"]),
    }
    for words, fig in drawn.items():
        texts = " ".join(text for ax in fig.axes for text in (ax.get_xlabel(), ax.get_ylabel()))
        assert words in texts and fig.get_figwidth() == 7


def test_the_tables_say_what_the_rows_say(committed):
    table = plots.few_shot_table(committed["few-shot"])
    assert len(table) == 22 and table["mean |log error|"].notna().all()
    best = table.set_index(["examples", "method"])
    means = committed["few-shot"].groupby(["k", "method"])["mae_log"].mean()
    assert best.loc[(50, "ridge"), "mean |log error|"] == pytest.approx(
        means[50, "ridge"], abs=1e-5
    )
    against = best.loc[(50, "ridge"), "error against one factor"]
    assert against == pytest.approx(means[50, "ridge"] - means[50, "factor"], abs=1e-5)
    kept = few_shot_estimates(committed["few-shot"], "spearman").set_index(["k", "method"])["value"]
    assert kept[400, "isotonic"] == pytest.approx(kept[0, "as it is"], abs=1e-6)
    summary = plots.transfer_summary(*(committed[n] for n in ("agreement", "learned", "builtin")))
    assert summary[["value", "low", "high"]].notna().all(axis=None)
