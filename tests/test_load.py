"""Load on a server: what is sent, what is read of the answer, and what is made of it."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssjf.analysis import server_load as load_summary
from ssjf.analysis.bootstrap import Estimate
from ssjf.analysis.server_load import GOAL_OVERHEAD_MS, LABELS, verdict
from ssjf.errors import InputError
from ssjf.experiments import store
from ssjf.experiments.grid import experiment
from ssjf.experiments.runs.server import sampled
from ssjf.harness import bench_client as load_client
from ssjf.harness.bench_client import Load
from ssjf.harness.deployment import deployment
from ssjf.harness.server import environment, options_of
from ssjf.proxy import io as folder
from ssjf.workload.texts import Texts

RESULT = {
    "errors": ["", ""], "start_times": [10.5, 10.0], "ttfts": [1.0, 2.0],
    "itls": [[0.5, 0.25], []], "input_lens": [7, 8], "output_lens": [3, 1],
    "generated_texts": ["secret", "secret"],
}  # fmt: skip


def test_a_result_becomes_lengths_and_times_by_hand():
    rows = load_client._rows(RESULT)
    assert rows["arrived_at"].tolist() == [0.5, 0.0]
    assert rows["ttft_seconds"].tolist() == [1.0, 2.0]
    assert rows["e2el_seconds"].tolist() == [1.75, 2.0]
    assert rows["output_tokens"].tolist() == [3, 1]
    assert "secret" not in rows.to_csv()


def test_a_request_that_failed_is_one_sentence():
    with pytest.raises(InputError, match="1 of 2 requests failed: ServerDisconnectedError"):
        load_client._rows(RESULT | {"errors": ["", "Traceback\n  in f\nServerDisconnectedError\n"]})


def test_the_middlewares_time_is_the_mean_of_what_came_between():
    before = {"overhead_seconds_sum": 1.0, "overhead_seconds_count": 100.0}
    after = {"overhead_seconds_sum": 1.05, "overhead_seconds_count": 110.0,
             "prediction_seconds_sum": 0.02, "prediction_seconds_count": 10.0,
             "predictions_total": 10.0}  # fmt: skip
    found = load_client._difference(before, after)
    assert found == pytest.approx({"overhead_ms": 5.0, "predictor_ms": 2.0, "predicted": 10.0})
    assert np.isnan(list(load_client._difference({}, {}).values())).all()


def test_loads_and_deployments_as_options():
    assert Load().options() == ["--request-rate", "inf"]
    assert Load(1.5, 2).options() == ["--request-rate", "1.5", "--max-concurrency", "2"]
    has = deployment("cpu-tiny").replace(eager=False)
    found = options_of(has, 4, folder.folder_of("builtin"))
    assert found[found.index("--max-num-seqs") + 1] == "4"
    assert {"--no-enforce-eager", "--no-enable-prefix-caching"} <= set(found)
    assert not {"--model", "--skip-tokenizer-init", "--scheduling-policy"} & set(found)


def test_a_server_knows_this_package_and_no_options_but_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("SSJF_SERVE_LEARN", "none")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    found = environment(str(tmp_path))
    assert "SSJF_SERVE_LEARN" not in found and found["OMP_NUM_THREADS"] == "7"
    assert found["HF_HUB_OFFLINE"] == "1" and "HF_HUB_OFFLINE" not in environment("org/model")


@given(st.integers(0, 5), st.integers(1, 20))
def test_prompts_are_drawn_once_each_and_fit(seed, n):
    texts = Texts([f"prompt {i}" * (1 + i % 3) for i in range(60)], np.arange(1, 61))
    prompts, tokens = sampled(texts, n, seed, 70)
    again, _ = sampled(texts, n, seed, 70)
    assert len(set(prompts)) == n and prompts == again
    known = dict(zip(texts.prompts, texts.output_tokens, strict=True))
    assert [known[prompt] for prompt in prompts] == tokens.tolist()
    assert all(len(p) + t <= 70 for p, t in zip(prompts, tokens, strict=True))


def test_too_few_prompts_are_one_sentence():
    texts = Texts(["a prompt", "another prompt"], np.array([5, 500]))
    with pytest.raises(InputError, match="2 requests are asked for and 1 of 2 prompts fit 100"):
        sampled(texts, 2, 0, 100)


def rows(shares, load="all at once", seeds=3, n=40):
    """Requests all there at 0 that take a share of what FCFS takes."""
    parts = []
    for series, share in shares.items():
        for seed in range(seeds):
            times = np.random.default_rng(seed).exponential(5, n)
            clock = np.nan if series == "fcfs" else 1.0
            parts.append(pd.DataFrame({
                "workload": load, "series": series, "seed": seed, "x": 0.0, "run": 0,
                "run_id": series, "arrived_at": 0.0, "ttft_seconds": share * times / 2,
                "e2el_seconds": share * times, "output_tokens": 11,
                "overhead_ms": 1.5 * clock, "predictor_ms": clock,
            }))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def test_the_same_share_of_every_time_is_that_reduction_without_a_spread():
    found = load_summary.reductions(rows({"fcfs": 1.0, "ssjf": 0.6})).set_index("metric")
    for metric in ("e2el_mean", "e2el_p99", "ttft_mean", "ttft_p99"):
        assert found.loc[metric, ["value", "low", "high"]].tolist() == pytest.approx([40] * 3)
    loss = found.loc["requests_per_second", "value"]
    assert loss == pytest.approx(100 * (1 - 1 / 0.6))  # it ends sooner: a loss below zero


def test_estimates_are_those_of_all_requests_and_of_each_run():
    found = load_summary.estimates(frame := rows({"fcfs": 1.0, "ssjf": 0.6}))
    of = {(each.series, each.metric): each for each in found.itertuples()}
    ssjf = frame[frame["series"] == "ssjf"]
    assert of["ssjf", "e2el_mean"].value == pytest.approx(ssjf["e2el_seconds"].mean())
    assert of["ssjf", "e2el_p99"].value == pytest.approx(ssjf["e2el_seconds"].quantile(0.99))
    rates = [len(run) / run["e2el_seconds"].max() for _, run in ssjf.groupby("seed")]
    assert of["ssjf", "requests_per_second"].value == pytest.approx(np.mean(rates))
    decoding = (ssjf["e2el_seconds"] - ssjf["ttft_seconds"]).groupby(ssjf["seed"]).mean()
    assert of["ssjf", "tpot_ms"].value == pytest.approx(1e3 * decoding.mean() / 10)
    assert of["ssjf", "overhead_ms"].value == 1.5 and np.isnan(of["fcfs", "overhead_ms"].value)


def test_one_seed_is_resampled_by_its_requests():
    table = load_summary.table(
        rows({"fcfs": 1.0, "ssjf": 0.6}, seeds=1), {"fcfs": "a", "ssjf": "b"}
    )
    assert table["server"].tolist() == ["a", "b"] and table["requests"].tolist() == [40, 40]
    assert table["mean E2EL reduction (%)"].tolist() == ["–", "40 [40, 40]"]
    assert table["middleware (ms)"].tolist() == ["–", "1.5"]
    low, high = json.loads(table["mean E2EL (s)"][0].partition(" ")[2])
    assert low < high


@pytest.mark.parametrize(
    ("found", "word"),
    [((0.5, 0.2, 0.9), "met"), ((3, 2, 4), "missed"), ((0.9, 0.2, 1.5), "not decided"),
     ((0.9, np.nan, np.nan), "not decided")],
)  # fmt: skip
def test_a_goal_is_judged_by_the_whole_interval(found, word):
    assert verdict(GOAL_OVERHEAD_MS, Estimate(*found)).startswith(word)


def test_tables_name_every_server_and_every_goal():
    shares = {"fcfs": 1.0, "served-fcfs": 1.001, "ssjf-light": 0.6, "headstart": 0.7}
    alone = rows({"fcfs": 1.0, "served-fcfs": 1.0}, "one at a time", n=60)
    both = pd.concat([alone, *(rows(shares, load) for load in ("below saturation", "all at once"))])
    table = load_summary.table(both, LABELS)
    assert len(table) == 10 and set(table["server"]) == set(LABELS.values())
    both["overhead_ms"] -= 0.25  # of the middleware itself: 0.25
    samples = busy(0.001)
    assert load_summary.goals(both, samples)["verdict"].tolist() == ["met"] * 5
    missed = load_summary.goals(both.assign(overhead_ms=both["overhead_ms"] + 5), busy(0.01))
    assert missed["verdict"].tolist() == ["missed"] * 3 + ["met", "missed"]


def busy(more_seconds):
    """Samples of two servers: 10 requests each, 1 s of the engine's and ours that much more."""
    parts = []
    for name, own in (("vllm serve", 0.003), ("ssjf serve", 0.003 + more_seconds)):
        at = np.cumsum(np.full(6, 10)) * np.array([[own], [1.0]])
        parts.append(pd.DataFrame({"series": name, "sent": [10] * 5 + [0], "cpu_seconds": at[0],
                                   "engine_cpu_seconds": at[1]}))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def test_the_share_of_the_processor_by_hand():
    assert load_summary.processor_share(busy(0.002)) == pytest.approx((0.2, 0.2, 0.2))


def test_every_server_of_an_experiment_gets_the_same_requests():
    for name in ("serve-load", "serve-alone"):
        specs = experiment(name).specs()
        for spec in specs:
            assert spec.series in LABELS
            assert spec.serve is None or spec.serve["client_limit"] == "ignore"
        asked = {(store.canonical(s.workload), s.seed, s.series) for s in specs}
        assert len(asked) == len(specs)
