"""The commands of README.md, as a user gives them."""

import json
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from commands import contents, process, refused, ssjf, trace
from ssjf.experiments import grid, store
from ssjf.files import sha256
from ssjf.scheduler import known_policies
from ssjf.simulator.profile import builtin_profiles
from ssjf.workload.catalogue import DATASETS, TEXTS

ROOT = Path(__file__).resolve().parents[1]
POLICY_FIELDS = {
    "policy", "jct_mean", "jct_p99", "jct_p99.9", "jct_max", "ttft_mean", "ttft_p99",
    "slowdown_mean", "slowdown_p99",
    "queue_depth_mean", "queue_depth_max", "completed_per_second", "preemptions", "gain_percent",
    "gain_low", "gain_high",
}  # fmt: skip


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    """The repository's workloads and claims; everything that is written goes elsewhere."""
    monkeypatch.setenv("SSJF_ROOT", str(ROOT))
    monkeypatch.setenv("SSJF_RESULTS", str(tmp_path / "results"))
    for name in ("SSJF_RAW", "SSJF_WORKLOADS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "results"


@pytest.fixture
def mixed(tmp_path):
    """An overloaded trace of short and long answers."""
    lengths = np.random.default_rng(0).choice([5, 400], 300).tolist()
    return trace(tmp_path / "mixed.csv", gap=2.0, output=lengths)


def answer(*arguments):
    """What a command prints as JSON, which must be JSON that any reader takes."""

    def no_constant(name):
        raise AssertionError(f"{name} is not JSON")

    result = ssjf(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout, parse_constant=no_constant)


def test_list_names_everything_by_kind():
    everything = ssjf("list").stdout
    for names in (grid.experiments(), known_policies(), builtin_profiles(), DATASETS, TEXTS):
        assert all(f"  {name}" in everything for name in names)
    assert "ssjf.rate.oracle.none" in everything and "  00_tour" in everything
    only = ssjf("list", "policies").stdout
    assert only.splitlines() == ["policies:", *(f"  {p}" for p in known_policies()),
                                 "  module:function"]  # fmt: skip


def test_list_works_outside_the_repository(tmp_path, monkeypatch):
    monkeypatch.delenv("SSJF_ROOT")
    monkeypatch.chdir(tmp_path)
    assert "claims:\n  (none here" in ssjf("list").stdout


def test_help_and_version():
    assert ssjf("--version").stdout == "ssjf, version 0.1.0\n"
    for command in ("run", "simulate", "check", "notebook", "report", "data", "serve"):
        assert ssjf(command, "--help").exit_code == 0
        assert f"  {command} " in ssjf("--help").stdout


def test_a_process_of_its_own_answers_too(tmp_path):
    done = process("simulate", trace(tmp_path / "t.csv", rows=5), "--policies", "fcfs")
    assert done.returncode == 0 and done.stderr == ""
    # 105 steps of 0.02 s for all 5 at once, at a rate of 1 request/s
    sentence = "Only FCFS was asked for (ρ 0.42, mean queue depth 0.0 under FCFS).\n"
    assert done.stdout.endswith(sentence)


def test_run_makes_what_is_missing_and_again_finds_the_copy_faithful(results):
    first = ssjf("run", "cv-sweep", "--seeds", 1, "--jobs", 1)
    assert first.stdout == "cv-sweep: 12 runs made, the others were there\n"
    before = contents(results)
    assert ssjf("run", "cv-sweep", "--seeds", 1, "--jobs", 1).stdout.startswith("cv-sweep: 0 runs")
    again = ssjf("run", "cv-sweep", "--seeds", 1, "--jobs", 1, "--again")
    assert (again.exit_code, again.stdout) == (0, "cv-sweep: 0 runs differ from the stored ones\n")
    assert contents(results) == before
    spec = grid.experiment("cv-sweep").specs(seeds=1)[3]
    replace_by_another(spec)
    again = ssjf("run", "cv-sweep", "--seeds", 1, "--jobs", 1, "--again")
    assert (again.exit_code, again.stdout) == (1, "cv-sweep: 1 runs differ from the stored ones\n")


def replace_by_another(spec):
    """A stored run with other numbers and a label that says nothing of it."""
    folder = store.run_folder(spec)
    rows = store.load(spec).drop(columns="run_id")
    store.write_parquet(rows.assign(jct_mean=rows["jct_mean"] * 1.01), folder / "rows.parquet")
    env = json.loads((folder / "env.json").read_text())
    env["rows_sha256"] = sha256(folder / "rows.parquet")
    (folder / "env.json").write_text(json.dumps(env))
    store.verify(folder)


def test_again_without_the_runs_says_what_to_do():
    assert "run `ssjf run cv-sweep`" in refused("run", "cv-sweep", "--seeds", 1, "--again")


def test_check_gives_a_verdict_by_name(monkeypatch, results):
    monkeypatch.setenv("SSJF_RAW", str(ROOT / "results" / "raw"))
    [found] = answer("check", "ssjf.overhead.share")
    assert found["claim_id"] == "ssjf.overhead.share" and found["verdict"] == "differs"
    assert found["low"] is None
    assert "ssjf.overhead.share" in ssjf("check", "ssjf.overhead.share").stdout
    assert not results.exists()  # only a check of all claims is written


def test_data_list_and_path(monkeypatch, tmp_path):
    monkeypatch.setenv("SSJF_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = answer("data", "list")
    assert {each["name"] for each in found} == {*DATASETS, *TEXTS}
    assert all(set(each) == {"name", "kind", "licence", "note", "path", "url"} for each in found)
    assert all(each["path"] is None and each["url"].startswith("https://") for each in found)
    assert "burstgpt: trace, CC BY 4.0; not here: https://" in ssjf("data", "list").stdout
    (tmp_path / "data").mkdir()
    there = tmp_path / "data" / "BurstGPT_1.csv"
    there.write_text("")
    assert ssjf("data", "path", "burstgpt").stdout == f"{there}\n"
    assert "moss: texts, CC BY-NC 4.0; not here: https://" in ssjf("data", "list").stdout


def test_texts_that_are_not_published_as_one_file_say_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setenv("SSJF_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for command in ("get", "path"):
        message = refused("data", command, "lmsys-chat-1m")
        assert "log in, accept its licence, and download" in message
    (tmp_path / "lmsys-chat-1m.jsonl").write_text("")
    for command in ("get", "path"):
        found = ssjf("data", command, "lmsys-chat-1m").stdout
        assert found == f"{tmp_path / 'lmsys-chat-1m.jsonl'}\n"


def test_simulate_answers_in_json(mixed):
    found = answer("simulate", mixed, "--slots", 2)
    names = ("rho", "predictor", "profile", "equal_arrivals", "policies", "recommendation")
    assert tuple(found) == names
    assert (found["predictor"], found["profile"]) == ("noise:0.5", "ssjf-paper")
    assert [each["policy"] for each in found["policies"]] == ["fcfs", "sjf", "ssjf", "hrrn"]
    assert all(set(each) == POLICY_FIELDS for each in found["policies"])
    assert found["rho"] > 1 and "lowers mean JCT" in found["recommendation"]["sentence"]
    fcfs, sjf = found["policies"][:2]
    assert fcfs["gain_percent"] == 0
    assert sjf["gain_percent"] == pytest.approx(100 * (1 - sjf["jct_mean"] / fcfs["jct_mean"]))


def test_every_format_of_trace_gives_the_same_answer(mixed, tmp_path):
    frame = pd.read_csv(mixed)
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True, double_precision=15)
    frame.to_parquet(tmp_path / "t.parquet")
    expected = ssjf("simulate", mixed, "--slots", 2).stdout
    for name in ("t.jsonl", "t.parquet"):
        assert ssjf("simulate", tmp_path / name, "--slots", 2).stdout == expected


def test_simulate_uses_the_traces_own_predictions(mixed, tmp_path):
    frame = pd.read_csv(mixed)
    own = tmp_path / "own.csv"
    frame.assign(predicted_tokens=frame["output_tokens"]).to_csv(own, index=False)
    for options in ([], ["--predictor", "column"]):
        found = answer("simulate", own, "--slots", 2, "--policies", "sjf,ssjf", *options)
        assert found["predictor"] == "column:predicted_tokens"
        _, sjf, ssjf_row = found["policies"]
        assert sjf | {"policy": "ssjf"} == ssjf_row
    assert answer("simulate", own, "--predictor", "oracle")["predictor"] == "oracle"


def test_scale_speeds_the_arrivals_up(mixed):
    loads = [answer("simulate", mixed, "--slots", 4, "--scale", s)["rho"] for s in (0.1, 1, 10)]
    assert loads[1:] == pytest.approx([10 * loads[0], 100 * loads[0]])


def test_memory_that_binds_makes_requests_wait_or_restart(mixed):
    free = answer("simulate", mixed, "--slots", 8)
    bound = answer("simulate", mixed, "--slots", 8, "--kv-tokens", 1_000)
    assert all(each["preemptions"] == 0 for each in free["policies"])
    assert any(each["preemptions"] > 0 for each in bound["policies"])
    assert bound["rho"] > free["rho"]


def test_policies_are_named_as_they_were_asked_for(mixed):
    found = answer("simulate", mixed, "--slots", 2, "--policies", "ssjf-aged:1, ssjf-aged:9")
    assert [p["policy"] for p in found["policies"]] == ["fcfs", "ssjf-aged:1", "ssjf-aged:9"]


def test_requests_at_one_instant_have_an_infinite_load_that_json_can_say(tmp_path):
    path = trace(tmp_path / "t.csv", rows=40, gap=0.0)
    found = answer("simulate", path, "--slots", 2)
    assert found["rho"] is None and "overloaded" in found["recommendation"]["sentence"]
    assert found["equal_arrivals"] == 39


def test_equal_arrivals_are_counted_in_one_line(tmp_path):
    path = trace(tmp_path / "t.csv", rows=40, gap=0.0)
    said = ssjf("simulate", path, "--slots", 2).stdout
    assert said.count("39 requests arrive at the time of the row above; rows keep their order") == 1
    again = ssjf("simulate", trace(tmp_path / "u.csv", rows=40), "--slots", 2).stdout
    assert "of the row above" not in again


def test_the_predictors_time_is_charged_to_those_who_ask_it(mixed):
    found = answer("simulate", mixed, "--predictor-seconds", 3, "--policies", "sjf,ssjf")
    fcfs, sjf, asked = (each["jct_mean"] for each in found["policies"])
    assert sjf == fcfs and asked > fcfs + 2.5  # 256 slots: nobody waits for another


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository with one small notebook."""
    for folder in ("notebooks", "papers"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("SSJF_ROOT", str(tmp_path))
    parameters = new_code_cell("load = 0.9", metadata={"tags": ["parameters"]})
    book = new_notebook(cells=[new_markdown_cell("# A claim"), parameters])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    book.metadata["ssjf"] = {"title": "T", "figures": [], "tables": []}
    nbformat.write(book, tmp_path / "notebooks" / "nb.ipynb")
    return tmp_path


def test_notebook_runs_with_other_parameters_apart(project):
    done = ssjf("notebook", "nb", "-p", "load=0.5", "--out", project / "out")
    assert done.exit_code == 0 and str(project / "out" / "executed" / "nb.ipynb") in done.stdout
    assert "load = 0.5" in (project / "out" / "executed" / "nb.ipynb").read_text()
    assert not (project / "results").exists()


def test_notebook_refuses_what_it_does_not_know(project):
    out = ["--out", project / "out"]
    message = refused("notebook", "nb", "-p", "laod=0.5", *out)
    assert message == "unknown parameter of nb.ipynb 'laod'; known: load"
    assert refused("notebook", "figure9") == "unknown notebook 'figure9'; known: nb"
    assert "must be of the type of 0.9" in refused("notebook", "nb", "-p", "load=high", *out)
    assert "'load' is not KEY=VALUE" in refused("notebook", "nb", "-p", "load", *out)
    assert not (project / "out").exists()
