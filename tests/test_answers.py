"""What a real model's answers say, from made-up ones that can be counted by hand."""

import numpy as np
import pandas as pd
import pytest

from ssjf.analysis.answers import lengths, overtakings, per_run, predictability, same_answers


def test_lengths_count_what_was_cut_and_what_loops():
    answers = pd.DataFrame({
        "series": ["a"] * 4 + ["b"], "output_tokens": [2, 4, 6, 8, 512],
        "finish_reason": ["stop", "stop", "stop", "length", "length"],
        "repeated": [0, 0.2, 0.6, 0.9, 0.5],
    })  # fmt: skip
    table = lengths(answers).set_index("series")
    assert table.loc["a", "answers"] == 4 and table.loc["a", "mean (tokens)"] == 5
    assert table.loc["a", ["p10", "p50", "p99", "max"]].tolist() == [2, 4, 6, 8]
    assert table.loc["a", "at the cap (%)"] == 25 and table.loc["a", "loops (%)"] == 50
    assert table.loc["b", "at the cap (%)"] == 100 and table.loc["b", "loops (%)"] == 0


def test_a_perfect_predictor_beats_another_draw():
    rng = np.random.default_rng(0)
    mean = np.exp(rng.normal(4, 1, 300))
    draws = pd.DataFrame({k: np.ceil(mean * np.exp(rng.normal(0, 0.7, 300))) for k in range(3)})
    known = pd.DataFrame({"mean": mean, "wrong": -mean + mean.max() + 1}).iloc[:250]
    table = predictability(draws, known).set_index(["series", "metric"])
    spearman = table.xs("spearman", level="metric")
    assert spearman.loc["mean", "low"] > spearman.loc["another draw", "high"] > 0.5
    assert spearman.loc["wrong", "value"] == pytest.approx(-spearman.loc["mean", "value"])
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()


def test_metrics_of_a_run_by_hand():
    rows = pd.DataFrame({
        "slots": 1, "series": "fcfs", "seed": 0, "run": 0, "output_tokens": [2, 4],
        "arrived_at": [0.0, 1], "scheduled_at": [0.0, 2], "first_token_at": [1.0, 3],
        "finished_at": [2.0, 6], "cpu_arrived_at": [0.0, 10], "cpu_scheduled_at": [0.0, 20],
        "cpu_first_token_at": [10.0, 30], "cpu_finished_at": [20.0, 60],
    })  # fmt: skip
    (steps,) = per_run(rows, ["slots"]).to_dict("records")
    assert steps["jct_mean"] == 3.5 and steps["jct_max"] == 5 and steps["ttft_mean"] == 1.5
    assert steps["normalised"] == (1 + 1.25) / 2 and steps["overtakings"] == 0
    (cpu,) = per_run(rows, ["slots"], "cpu_").to_dict("records")
    assert cpu["jct_mean"] == 35


def test_overtakings_are_pairs_out_of_order():
    arrived = np.arange(4.0)
    assert overtakings(arrived, arrived) == 0
    assert overtakings(arrived, np.array([3.0, 2, 1, 0])) == 6 / 4
    assert overtakings(arrived[::-1], np.array([0.0, 5, 6, 7])) == 6 / 4


def test_equal_answers_are_counted_by_prompt():
    known = pd.DataFrame({"prompt_hash": ["p", "q", "q"], "answer": ["1", "2", "3"]})
    rows = pd.DataFrame({"prompt_hash": ["q", "p", "p"], "answer": ["2", "1", "9"]})
    assert same_answers(rows, known) == (2, 3)
