"""What notebooks draw with: estimates for seaborn, looks, frames of figures, captions, tables."""

import itertools

import matplotlib
import numpy as np
import pandas as pd
import pytest
import seaborn as sns
from matplotlib.colors import to_hex

from ssjf import report
from ssjf.analysis import bootstrap
from ssjf.analysis.estimates import against, captured, means, replicates
from ssjf.analysis.predictions import coverage, quality_of
from ssjf.errors import InputError
from ssjf.experiments.draws import authors_predictions
from ssjf.report import ablation
from ssjf.simulator.published import quirk_names

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SERIES = {"fcfs": 1.0, "sjf": 0.5, "ssjf-cls5": 0.7}
RUNS = 6
MODES = {"mode": ["none", "dynamic", "continuous"]}
SETTINGS = {**MODES, "quirks_off": ["", "drops_last_job", "drops_last_job+drifting_clock"]}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def frame(x=(1.0, 3.0), **grid):
    """Rows per run: FCFS's JCT is 10 s (1 + x) with a spread over runs, others a share of it."""
    keys = list(grid)
    rows = []
    for *values, series, at, run in itertools.product(*grid.values(), SERIES, x, range(RUNS)):
        jct = 10 * (1 + at) * (1 + 0.05 * run) * SERIES[series]
        rows.append(
            dict(zip(keys, values, strict=True))
            | {"series": series, "x": at, "seed": run // 3, "run": run, "jct_mean": jct}
            | {"jct_p99": 3 * jct, "queue_depth_mean": 2.0}
            | {"throughput_25": 1 / jct, "completed_per_second": 0.5}
            | {"run_id": "-".join(map(str, [*values, series]))}
        )
    return pd.DataFrame(rows)


def predictions(rows=6_000, noise=0.4):
    """Rows per prompt: log-normal lengths, predicted with log-normal noise, calibrated."""
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    predicted = np.exp(rng.normal(4.5, 0.8, rows))
    truth = predicted * np.exp(noise * rng.standard_normal(rows))
    edges = np.percentile(truth, [25, 50, 75, 99])
    levels = {f"q{p:g}": predicted * np.exp(noise * norm.ppf(p)) for p in (0.1, 0.9)}
    return pd.DataFrame(
        {
            "series": "light", "conversation": np.arange(rows).astype(str),
            "output_tokens": truth, "predicted_tokens": predicted,
            "true_class": np.searchsorted(edges, truth, side="right"),
            "predicted_class": np.searchsorted(edges, predicted, side="right"), **levels,
        }
    )  # fmt: skip


def test_seaborn_draws_the_value_and_the_interval_that_it_is_given():
    estimates = report.named(means(frame(mode=["none"]), ["mode", "x"], "jct_mean"))
    look = report.looks(estimates)
    ax = sns.lineplot(report.long(estimates), x="x", y="value", **look, **report.INTERVAL)
    for line, band, (name, part) in zip(
        ax.lines, ax.collections, estimates.groupby("policy", sort=False), strict=False
    ):
        assert line.get_ydata() == pytest.approx(part["value"].to_numpy())
        ends = band.get_paths()[0].vertices[:, 1]
        assert ends.min() == pytest.approx(part["low"].min())
        assert ends.max() == pytest.approx(part["high"].max())
        assert to_hex(line.get_color()).upper() == look["palette"][name].upper()


def test_a_value_outside_its_interval_is_not_drawn():
    wrong = pd.DataFrame({"x": [1], "value": [3.0], "low": [1.0], "high": [2.0]})
    with pytest.raises(ValueError, match="1 estimates are outside their interval"):
        report.long(wrong)


def test_a_finished_figure_has_one_legend_shared_labels_and_the_house_s_width():
    estimates = report.named(means(frame(**MODES), ["mode", "x"], "jct_mean"))
    grid = sns.relplot(
        report.long(estimates), x="x", y="value", col="mode", kind="line",
        **report.looks(estimates), **report.INTERVAL, facet_kws={"legend_out": False},
    )  # fmt: skip
    report.finish(grid, 3.0, titles="{col_name}", xlabel="arrival rate (1/s)")
    grid.figure.canvas.draw()
    assert grid.figure.get_figwidth() == 7
    assert [ax.get_title() for ax in grid.axes.flat] == list(report.MODES.values())
    (legend,) = grid.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(estimates["policy"].unique())
    assert grid.figure.get_supxlabel() == "arrival rate (1/s)"
    assert not any(ax.get_xlabel() for ax in grid.axes.flat)


def test_points_have_their_bars_and_a_legend_its_further_entries():
    estimates = means(frame(mode=["none"]), ["mode", "x"], "jct_mean")
    fig, ax = plt.subplots()
    report.points(ax, estimates["x"], estimates, color="k", label="all")
    ax.legend()
    report.finish(fig, 2.0, also=report.key(simulated={"marker": "o"}))
    segments = ax.containers[0].lines[2][0].get_segments()
    assert [float(part[0][1]) for part in segments] == pytest.approx(estimates["low"].tolist())
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["all", "simulated"]


def test_a_mean_keeps_its_mixture_of_x():
    """All replicates hold both x, so the spread between x is no uncertainty of the mean."""
    one = means(frame(mode=["none"]).assign(jct_mean=lambda f: f["x"]), ["mode"], "jct_mean")
    assert (one[["value", "low", "high"]].to_numpy() == 2.0).all()


def test_gains_are_those_of_the_bootstrap_on_replicates():
    runs = frame(**MODES)
    gain = against(runs, ["mode"]).set_index(["mode", "series"]).loc[("none", "sjf")]
    wide = replicates(runs[runs["mode"] == "none"], "jct_mean")
    assert tuple(gain) == bootstrap.reduction(wide["fcfs"], wide["sjf"])
    assert gain["value"] == pytest.approx(50)


def test_the_table_of_gains_has_a_row_per_mode_and_policy():
    runs = frame(**MODES)
    table = report.gains(runs, replay=runs)
    assert len(table) == 6
    assert set(table["policy"]) == {"SJF (oracle)", "SSJF (5-class)"}
    assert np.allclose(table["JCT reduction (%)"], table["reduction, seed 42 (%)"])
    assert np.allclose(table["spread over seeds (points)"], 0)
    assert (table["FCFS queue depth"] == 2).all()


def test_the_share_captured_is_of_the_oracle_s_gain():
    runs = frame(x=(0.7,), slots=[1, 8], rho=[0.7, 0.9])
    shares = captured(runs).set_index(["slots", "rho", "series"])["value"]
    assert shares[1, 0.7, "sjf"] == pytest.approx(100)
    assert shares[1, 0.7, "ssjf-cls5"] == pytest.approx(60)


def test_the_ablation_pairs_each_setting_with_the_published_one():
    runs = frame(**SETTINGS).assign(sweep="Gamma CV")
    better = (runs["quirks_off"] == "drops_last_job") & (runs["series"] == "sjf")
    runs.loc[better, "jct_mean"] *= 1.2
    estimates = ablation.estimates(runs, frame(x=(0.8,), slots=[2], rho=[0.8]))
    change = estimates.set_index(ablation.KEYS)["change"]
    assert change["Gamma CV", "none", "drops_last_job", "sjf"] == pytest.approx(-10)
    assert change["Gamma CV", "none", "", "sjf"] == 0
    assert np.isnan(change["steady state, ρ = 0.8", "continuous", ablation.ALL_OFF, "sjf"])


def test_every_quirk_has_words():
    assert set(ablation.WORDS) == set(quirk_names()) - {"quarter_throughput"}
    assert ablation.off("a+b") == "without any quirk" and ablation.off("") == "as published"


def test_calibrated_predictions_cover_eight_tenths_in_all_and_in_bands():
    table = coverage(predictions())
    assert table.loc[table["by"] == "all prompts", "value"].item() == pytest.approx(0.8, abs=0.02)
    predicted = table[table["by"] == "predicted length"]
    assert predicted["n"].sum() == 6_000 and predicted["value"].between(0.75, 0.85).all()


def test_quality_is_text_with_its_interval():
    (row,) = report.quality(quality_of(predictions(600)), ["spearman", "mae"]).itertuples(
        index=False
    )
    value, low, high = (float(part.strip("[],")) for part in row[1].split())
    assert row[0] == "light" and low <= value <= high


def test_the_authors_predictions_are_as_good_as_was_measured():
    ours = quality_of(authors_predictions("cls5", 20_000).assign(series="5"), metrics=["spearman"])
    assert ours["value"].item() == pytest.approx(0.774, abs=0.01)


def test_the_authors_numbers_are_data():
    assert report.authors("ssjf_replay").shape == (12, 5)
    assert report.authors("ssjf_cv_replay").shape == (12, 5)
    assert report.authors("ssjf_steady").shape == (20, 4)


def test_a_caption_names_runs_and_queue_depth():
    assert report.basis(frame(mode=["none"]), "mode") == (
        "6 runs a point; mean queue depth under FCFS: 2 (no batching)."
    )
    steady = frame(x=(0.7,), slots=[1], rho=[0.7])
    assert report.depths(steady, ["slots", "rho"]) == "2 (slots 1, ρ 0.7)"


def test_a_device_that_is_not_known():
    assert set(report.machines(["v100-32gb"])["device"]) == {"v100-32gb"}
    with pytest.raises(InputError, match="unknown device 'B300'; known: "):
        report.machines(["B300"])
