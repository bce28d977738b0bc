"""Every plot is a figure with units on its axes and one colour per policy; tables add up."""

import itertools

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from ssjf.analysis import bootstrap
from ssjf.report import plots, style
from ssjf.report.plots import quirks
from ssjf.request import Completions, Requests
from ssjf.workload.lengths import llm_boxes

matplotlib.use("Agg")

SERIES = {"fcfs": 1.0, "sjf": 0.5, "ssjf-cls5": 0.7}
RUNS = 6


def frame(x=(1.0, 3.0), **grid):
    """Rows per run: FCFS's JCT is 10 s (1 + x) with a spread over runs, others a share of it."""
    keys = list(grid)
    found = []
    for *values, series, at, run in itertools.product(*grid.values(), SERIES, x, range(RUNS)):
        jct = 10 * (1 + at) * (1 + 0.05 * run) * SERIES[series]
        found.append(
            dict(zip(keys, values, strict=True))
            | {"series": series, "x": at, "seed": run // 3, "run": run, "jct_mean": jct}
            | {"jct_p99": 3 * jct, "jct_max": 9 * jct, "slowdown_mean": jct / 4}
            | {"slowdown_p99": jct, "slowdown_max": 4 * jct, "queue_depth_mean": 2.0}
            | {"throughput_25": 1 / jct, "completed_per_second": 0.5}
            | {"run_id": "-".join(map(str, [*values, series]))}
        )
    return pd.DataFrame(found)


def labels(fig):
    """Every text of the figure that is not in a legend."""
    axes = [text for ax in fig.axes for text in (ax.get_xlabel(), ax.get_ylabel())]
    return " ".join([*axes, fig.get_supxlabel(), fig.get_supylabel()])


def colours(fig):
    """Label of a legend's entry: the colour it has in the figure."""
    found = {}
    for ax in fig.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            line = handle[0] if isinstance(handle, tuple) else handle
            found.setdefault(label, set()).add(to_hex(line.get_color()).upper())
    return found


MODES = {"mode": ["none", "dynamic", "continuous"]}
STEADY = {"slots": [1, 8], "rho": [0.7, 0.9]}
SETTINGS = {**MODES, "quirks_off": ["", "drops_last_job", "drops_last_job+drifting_clock"]}


def tail_frame():
    quantiles = {f"slowdown_q{p:.6f}": 1 / (1 - p) for p in (0.0, 0.5, 0.9, 0.999)}
    return frame(x=(0.7,), **STEADY).assign(**quantiles)


def ablation_estimates():
    steady = frame(x=(0.8,), slots=[2], rho=[0.8])
    return plots.ablation_estimates(plots.together(Poisson_rate=frame(**SETTINGS)), steady)


def shares():
    taus = pd.DataFrame({"series": ["ssjf-cls5", "sjf"], "tau": [0.6, 1.0]})
    return plots.captured(frame(x=(0.7,), **STEADY), taus)


DRAWN = {
    "sweep": lambda: plots.sweep(frame(**MODES), "arrival rate (1/s)", ["jct_mean"]),
    "batch_size": lambda: plots.batch_size(frame(mode=["dynamic"], slots=[2, 4])),
    "azure": lambda: plots.azure(frame(workload=["conv", "code"], **MODES)),
    "llm_gains": lambda: plots.llm_gains(frame(workload=["a", "b"], **MODES)),
    "steady_map": lambda: plots.steady_map(frame(x=(0.7,), **STEADY), ["sjf", "ssjf-cls5"]),
    "tail": lambda: plots.tail(tail_frame()),
    "tail_price": lambda: plots.tail_price(tail_frame()),
    "predictor_quality": lambda: plots.predictor_quality(shares()),
    "ablation": lambda: plots.ablation(ablation_estimates()),
    "ablation_throughput": lambda: plots.ablation_throughput(ablation_estimates()),
    "length_boxes": lambda: plots.length_boxes(llm_boxes(), "vicuna-13b"),
}
UNITS = {
    "sweep": ["(1/s)", "(s)"],
    "batch_size": ["(requests)", "(s)", "(%)"],
    "azure": ["(s)", "recorded rate"],
    "llm_gains": ["(%)"],
    "steady_map": ["(requests at a time)", "utilisation"],
    "tail": ["JCT / time alone", "share of requests"],
    "tail_price": ["mean JCT (s)", "p99 JCT (s)"],
    "predictor_quality": ["Kendall", "(%)"],
    "ablation": ["(%)"],
    "ablation_throughput": ["×"],
    "length_boxes": ["(tokens)"],
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_plot_is_a_figure_with_units_in_the_house_s_colours(name):
    fig = DRAWN[name]()
    assert isinstance(fig, Figure)
    assert fig.get_figwidth() == 7
    fig.canvas.draw()
    for unit in UNITS[name]:
        assert unit in labels(fig)
    house = {style.look(series)["label"]: style.look(series)["color"] for series in SERIES}
    for label, found in colours(fig).items():
        assert found == {house[label.split(":")[0]].upper()}


def test_a_mean_keeps_its_mixture_of_x():
    """All replicates hold both x, so the spread between x is no uncertainty of the mean."""
    one = plots.means(frame(mode=["none"]).assign(jct_mean=lambda f: f["x"]), ["mode"], "jct_mean")
    assert (one[["value", "low", "high"]].to_numpy() == 2.0).all()


def test_gains_are_those_of_the_bootstrap_on_replicates():
    runs = frame(**MODES)
    found = plots.against(runs, ["mode"]).set_index(["mode", "series"]).loc[("none", "sjf")]
    wide = plots.replicates(runs[runs["mode"] == "none"], "jct_mean")
    assert tuple(found) == bootstrap.reduction(wide["fcfs"], wide["sjf"])
    assert found["value"] == pytest.approx(50)


def test_the_sweep_table_has_a_row_per_mode_and_policy():
    runs = frame(**MODES)
    table = plots.sweep_table(runs, replay=runs)
    assert len(table) == 6
    assert set(table["policy"]) == {"SJF (oracle)", "SSJF (5-class)"}
    assert np.allclose(table["JCT reduction (%)"], table["reduction, seed 42 (%)"])
    assert np.allclose(table["spread over seeds (points)"], 0)
    assert (table["FCFS queue depth"] == 2).all()


def test_the_replay_table_shows_the_difference():
    runs = plots.together(Poisson_rate=frame(mode=["none"]), Gamma_CV=frame(mode=["none"]))
    authors = runs.groupby(["sweep", "mode", "series"])[
        ["jct_mean", "jct_p99", "throughput_25"]
    ].mean()
    table = plots.replay_table(runs, (authors + 1).reset_index())
    assert np.allclose(table.filter(like="difference"), -1)
    assert table["reduction of FCFS (%)"].tolist() == pytest.approx([0, 50, 30] * 2)
    assert list(table["sweep"].unique()) == ["Poisson rate", "Gamma CV"]


def test_the_ablation_pairs_each_setting_with_the_published_one():
    runs = frame(**SETTINGS)
    better = (runs["quirks_off"] == "drops_last_job") & (runs["series"] == "sjf")
    runs.loc[better, "jct_mean"] *= 1.2
    steady = frame(x=(0.8,), slots=[2], rho=[0.8])
    estimates = plots.ablation_estimates(plots.together(Gamma_CV=runs), steady)
    keys = ["sweep", "mode", "quirks_off", "series"]
    change = estimates.set_index(keys)["change"]
    assert change["Gamma CV", "none", "drops_last_job", "sjf"] == pytest.approx(-10)
    assert change["Gamma CV", "none", "", "sjf"] == 0
    assert np.isnan(change["steady state, ρ = 0.8", "continuous", quirks.ALL_OFF, "sjf"])


def test_the_ablation_table_is_in_words():
    table = plots.ablation_table(ablation_estimates())
    assert {"as published", "without any quirk"} <= set(table["quirk off"])
    brief = plots.ablation_brief(table)
    assert len(brief) == 4
    assert brief.iloc[0]["no batching, SJF (oracle)"] == "50.0"


def test_every_quirk_has_words():
    from ssjf.simulator.published import quirk_names

    assert set(quirks.WORDS) == set(quirk_names()) - {"quarter_throughput"}


def test_the_share_captured_is_of_the_oracle_s_gain():
    found = shares().set_index(["slots", "rho", "series"])["value"]
    assert found[1, 0.7, "sjf"] == pytest.approx(100)
    assert found[1, 0.7, "ssjf-cls5"] == pytest.approx(60)
    table = plots.quality_table(shares())
    assert {"Kendall's τ-b", "predictor"} <= set(table)


def test_the_authors_numbers_are_data():
    assert plots.authors("ssjf_replay").shape == (12, 5)
    assert plots.authors("ssjf_cv_replay").shape == (12, 5)
    assert plots.authors("ssjf_steady").shape == (20, 4)


def test_steady_and_tail_tables_keep_every_cell():
    steady = plots.steady_table(frame(x=(0.7,), **STEADY), plots.authors("ssjf_steady"))
    assert len(steady) == 8
    assert steady["difference (points)"].notna().all()
    assert len(plots.tail_table(tail_frame())) == 12


def test_a_caption_names_runs_and_queue_depth():
    assert plots.basis(frame(mode=["none"]), "mode") == (
        "6 runs a point; mean queue depth under FCFS: 2 (no batching)."
    )
    assert plots.depths(tail_frame(), ["slots", "rho"]).startswith("2 (slots 1, ρ 0.7)")


def test_a_queue_shows_both_policies():
    requests = Requests(np.array([0.0, 1.0]), np.array([1, 1]), np.array([10, 2]))
    stamps = np.array([0.0, 2.0])
    run = Completions(requests, stamps, stamps + 1, stamps + 3, np.zeros(2, np.int64))
    fig = plots.queue({"fcfs": run, "sjf": run}, "title")
    assert [ax.get_title() for ax in fig.axes[:2]] == ["FCFS", "SJF (oracle)"]
    assert "(s)" in labels(fig)
