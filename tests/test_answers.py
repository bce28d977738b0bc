"""What a real model's answers say, from made-up ones that can be counted by hand."""

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from ssjf.analysis.answers import against_draws, lengths, overtakings, per_run, same_answers
from ssjf.analysis.predictions import quality_of
from ssjf.cli.demo import sentence, summary


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


def test_predictors_and_second_answers_stand_before_the_same_draws():
    draws = pd.DataFrame({
        "prompt_hash": [*"ppqqrrz"], "sample": [0, 1, 0, 1, 0, 1, 0],
        "output_tokens": [1, 2, 30, 40, 200, 100, 5],
    })  # fmt: skip
    predicted = pd.DataFrame({
        "prompt_hash": [*"pqrpqr"], "series": ["a"] * 3 + ["b"] * 3,
        "predicted_tokens": [1, 2, 3, 3, 2, 1],
    })  # fmt: skip
    table = against_draws(draws, predicted)
    assert len(table) == 4 * 6 and "z" not in set(table["prompt_hash"])
    others = table[table["series"] == "other-draws"].sort_values(["prompt_hash", "sample"])
    assert others["predicted_tokens"].tolist() == [2, 1, 40, 30, 100, 200]
    found = quality_of(table, metrics=["spearman", "pairs_2x"]).set_index(["series", "metric"])
    ranks = spearmanr([1, 2, 30, 40, 200, 100], [2, 1, 40, 30, 100, 200])[0]
    assert np.isclose(found.loc[("second-draw", "spearman"), "value"], ranks)
    # Of 14 pairs of answers 2x apart, two are of one prompt, which no predictor can order
    right = [found.loc[(name, "pairs_2x"), "value"] for name in "ab"]
    assert np.allclose(right, [13 / 14, 1 / 14])


def test_the_demo_says_what_changed_at_equal_speed():
    """The second burst runs at half the speed."""
    rows = pd.DataFrame({
        "policy": ["fcfs", "fcfs", "ssjf", "ssjf"], "output_tokens": [30, 10, 30, 10],
        "answer": ["a", "b", "a", "c"], "arrived_at": 0.0,
        "scheduled_at": [0.0, 30, 20, 0], "first_token_at": [1.0, 31, 22, 2],
        "finished_at": [30.0, 40, 80, 20],
    })  # fmt: skip
    table = summary(rows)
    assert table.loc["fcfs"].tolist() == [35, 39.9, 40, 16, 40, 40]
    assert table.loc["ssjf", ["mean JCT (s)", "tokens", "makespan (s)"]].tolist() == [50, 40, 80]
    words = sentence(table, rows)
    assert "mean JCT -29 % at equal speed" in words and "1 of 2 answers word for word" in words
