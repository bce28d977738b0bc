"""Figures and tables of proxies and heads, on frames whose right answers are known."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from ssjf.experiments.grid import experiment
from ssjf.report import plots, style
from ssjf.report.plots import elsewhere, proxies

HEADS = [series["series"] for series in experiment("heads").series]
PROXIES = [series["series"] for series in experiment("proxies").series]
LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
N = 300


def predictions(series, noise=0.4, seed=0, **keys):
    """Rows per prompt: log-normal lengths, predicted with log-normal noise, calibrated."""
    from scipy.stats import norm

    rng = np.random.default_rng(seed)
    said = np.exp(rng.normal(4.5, 0.8, N))
    truth = np.maximum(np.rint(said * np.exp(noise * rng.standard_normal(N))), 1)
    edges = np.percentile(truth, [25, 50, 75, 99])
    hashes = [f"{i:016x}" for i in range(N)]
    return pd.DataFrame(
        {
            "run_id": f"{abs(hash(series)) % 16**8:016x}", "series": series, "seed": 0, "run": 0,
            "x": 0.0, "prompt_hash": hashes, "conversation": hashes, "turn": 1,
            "output_tokens": truth, "draw_1": truth + 1, "predicted_tokens": said,
            "true_class": np.searchsorted(edges, truth, side="right"),
            "predicted_class": np.searchsorted(edges, said, side="right"),
            **{f"q{p:g}": said * np.exp(noise * norm.ppf(p)) for p in LEVELS}, **keys,
        }
    )  # fmt: skip


def queued(series, gains, **keys):
    """Rows per run: FCFS takes 100 s, the oracle 50, and each series what its gain leaves."""
    rng = np.random.default_rng(1)
    parts = []
    for seed in range(4):
        common = {"x": 0.9, "seed": seed, "run": 0, "run_id": f"{seed:016x}",
                  "queue_depth_mean": 9.0, **keys}  # fmt: skip
        scale = rng.uniform(0.9, 1.1)
        for name, gain in zip(["fcfs", "sjf", *series], [0, 1, *gains], strict=True):
            jct = scale * (100 - 50 * gain)
            parts.append(common | {"series": name, "jct_mean": jct, "jct_p99": 3 * jct,
                                   "throughput_25": 1 / jct})  # fmt: skip
    return pd.DataFrame(parts)


RUNS = pd.concat([predictions(name, seed=i) for i, name in enumerate(HEADS)])
PROXY_RUNS = pd.concat([predictions(name, seed=i) for i, name in enumerate(PROXIES)])
SERIES = [f"proxy:{name}" for name in PROXIES] + [f"head:{name}" for name in HEADS]
SHARES = np.linspace(0.1, 0.8, len(SERIES))
GAIN = pd.concat(
    [queued(SERIES, SHARES, slots=slots, rho=rho) for slots in (1, 8) for rho in (0.7, 0.9)]
)
COST = pd.DataFrame(
    [
        {"series": name, "prompt_tokens": tokens, "batch": batch, "ms_per_prompt": 0.1 * tokens,
         "rss_mb": 200.0}
        for name in PROXIES for tokens in (64, 256) for batch in (1, 32)
    ]
)  # fmt: skip
PUBLISHED = pd.concat(
    [queued([f"head:{h}" for h in HEADS], np.linspace(0, 0.9, len(HEADS)), mode=mode)
     for mode in ("none", "dynamic", "continuous")]
)  # fmt: skip
ROUNDS = pd.concat(
    [predictions(name, turn=turn, workload=data, seed=turn)
     for name in ("light-turn", "light-history") for turn in range(1, 6)
     for data in ("sharegpt", "moss")]
)  # fmt: skip
ROUNDS_GAIN = pd.concat(
    [queued(["proxy:light-turn", "proxy:light-history"], [0.4, 0.5], workload=data, round=turn)
     for turn in range(1, 6) for data in ("sharegpt", "moss")]
)  # fmt: skip
DATASETS = pd.concat(
    [predictions(name, workload=data) for name in ("light", "constant") for data in elsewhere.DATA]
)


def labels(fig):
    found = [text.get_text() for ax in fig.axes for text in (ax.xaxis.label, ax.yaxis.label)]
    return " ".join([*found, *(ax.get_title() for ax in fig.axes)])


DRAWN = {
    "heads": (lambda: plots.heads(RUNS, GAIN), ["τ-b", "(%)"]),
    "residuals": (lambda: plots.residuals(RUNS, "l1"), ["(tokens)", "prompts"]),
    "frontier": (lambda: plots.frontier(GAIN, COST), ["milliseconds", "(%)"]),
    "reliability": (lambda: plots.reliability(PROXY_RUNS, ["light", "encoder"]), ["level", "band"]),
    "rounds": (lambda: plots.rounds(plots.rounds_quality(ROUNDS), ROUNDS_GAIN), ["round", "(%)"]),
    "datasets": (lambda: plots.datasets(DATASETS), ["τ-b"]),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_is_drawn_with_its_units(name):
    draw, units = DRAWN[name]
    fig = draw()
    assert isinstance(fig, Figure)
    fig.canvas.draw()
    for unit in units:
        assert unit in labels(fig), labels(fig)


def test_the_share_of_the_oracle_s_gain_is_what_was_put_in():
    found = proxies.shares_of(GAIN).query("slots == 1 and rho == 0.9").set_index("series")
    for series, share in zip(SERIES, SHARES, strict=True):
        assert found.loc[series, "value"] == pytest.approx(100 * share)
    assert found.loc["sjf", "value"] == pytest.approx(100)


def test_the_table_of_choice_has_a_row_per_proxy_with_its_cost():
    table = plots.choice(PROXY_RUNS, GAIN, COST)
    assert list(table["proxy"]) == [style.proxy_look(name)["label"] for name in PROXIES]
    assert (table["ms, 64 tokens"] == 6.4).all() and (table["ms, 256 tokens"] == 25.6).all()
    shares = table["share of the oracle's gain (%)"].str.partition(" ")[0].astype(float)
    assert shares.tolist() == pytest.approx((100 * SHARES[: len(PROXIES)]).tolist(), abs=0.06)


def test_reductions_in_the_paper_s_simulation_are_those_put_in():
    table = plots.heads_published(PUBLISHED)
    first = table["dynamic: mean JCT reduction (%)"].str.partition(" ")[0].astype(float)
    assert first.iloc[0] == pytest.approx(50), "the oracle comes first"
    assert first.iloc[1:].tolist() == pytest.approx(
        (50 * np.linspace(0, 0.9, len(HEADS))).round(1).tolist(), abs=0.06
    )
    assert set(table.columns.str.partition(":").get_level_values(0)) == {
        "none", "dynamic", "continuous"}  # fmt: skip


def test_every_head_has_a_row_and_every_measure_its_interval():
    table = plots.heads_quality(RUNS)
    assert len(table) == len(HEADS) and table.index.is_unique
    cells = table.to_numpy().ravel()
    for cell in cells:
        value, low, high = (float(part.strip("[],")) for part in cell.split(" "))
        assert low <= value + 1e-9 and value <= high + 1e-9


def test_calibrated_predictions_cover_eight_tenths_in_all_and_in_bands():
    many = pd.concat([predictions("light", seed=seed) for seed in range(20)], ignore_index=True)
    table = plots.coverage_by_band(many, ["light"])
    everything = table[table["by"] == "all prompts"]["coverage"].item()
    assert everything == pytest.approx(0.8, abs=0.02)
    predicted = table[table["by"] == "predicted length"]
    assert predicted["n"].sum() == len(many)
    assert predicted["coverage"].between(0.75, 0.85).all()


def test_rounds_keep_their_order_and_their_gains():
    table = plots.rounds_table(plots.rounds_quality(ROUNDS), ROUNDS_GAIN)
    assert len(table) == 2 * 2 * 5
    alone = table[table["predictor"].str.contains("turn alone")]
    assert alone["mean JCT reduction (%)"].tolist() == pytest.approx([20.0] * 10)


def test_a_second_answer_that_is_one_token_longer_has_the_same_order():
    table = plots.ceilings(PROXY_RUNS).set_index("predictor")
    assert table.loc["Vicuna-7B: a second answer", "Spearman's ρ"].startswith("1 ")
    authors = float(
        table.loc["the SSJF authors' 5-class BERT (LMSYS-Chat-1M)", "Spearman's ρ"].split(" ")[0]
    )
    assert authors == pytest.approx(0.774, abs=0.01), "measured from their published predictions"


def test_every_proxy_has_its_own_look():
    looks = [style.proxy_look(name) for name in style._PROXIES]
    for key in ("color", "marker", "label"):
        assert len({look[key] for look in looks}) == len(looks)
    assert set(PROXIES) <= set(style._PROXIES)
    assert style.proxy_look("head:l1")["label"] == "l1"
