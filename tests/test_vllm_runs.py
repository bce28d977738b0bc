"""Measured experiments from the command line, on the real engine."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

import vllm_engine
from commands import process
from ssjf.experiments import fidelity as measured
from ssjf.experiments.grid import experiment

pytestmark = [vllm_engine.needed, pytest.mark.slow]


def folders(results, name):
    return sorted(path for path in (results / "raw" / name).glob("[0-9a-f]*"))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The runs of the smallest measured experiment, made by ``ssjf run``."""
    folder = tmp_path_factory.mktemp("measured")
    done = process("run", "vllm-anatomy", env={"SSJF_RESULTS": str(folder)})
    assert done.returncode == 0, done.stderr
    assert "3 runs made" in done.stdout
    return folder


def test_a_raw_run_says_what_it_ran_on(results):
    for folder in folders(results, "vllm-anatomy"):
        env = json.loads((folder / "env.json").read_text())
        assert env["vllm"] and env["torch"] and env["deployment"]["shape"] == "tiny"
        assert env["accelerator"] or env["processor"]


def test_requests_and_steps_of_a_run_tell_one_story(results):
    for folder in folders(results, "vllm-anatomy"):
        rows = pd.read_parquet(folder / "rows.parquet")
        requests, steps = rows[rows["of"] == "request"], rows[rows["of"] == "step"]
        assert (requests["finished_at"] >= requests["first_token_at"]).all()
        assert (requests["first_token_at"] > requests["scheduled_at"]).all()
        assert requests["preempted"].sum() == steps["preemptions"].sum() > 0
        assert steps["kv_blocks"].max() <= 48 and steps["running"].max() <= 8
        # a token a sequence and step, but for steps of a prefill that was not complete
        assert steps["sequences"].sum() >= requests["output_tokens"].sum()


def test_what_is_finished_is_not_run_again(results):
    done = process("run", "vllm-anatomy", env={"SSJF_RESULTS": str(results)})
    assert done.returncode == 0 and "0 runs made" in done.stdout


def test_an_engine_that_dies_is_one_sentence_and_leaves_what_is_finished(tmp_path):
    """Killed in the second run: the first stays, the next ``ssjf run`` makes the others."""
    env = os.environ | {"SSJF_RESULTS": str(tmp_path)}
    command = [sys.executable, "-m", "ssjf", "run", "vllm-anatomy"]
    running = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    while not folders(tmp_path, "vllm-anatomy"):
        assert running.poll() is None
        time.sleep(0.02)
    os.kill(worker_of(running.pid), signal.SIGKILL)
    said = running.communicate(timeout=600)[1]
    assert running.returncode == 2 and "Traceback" not in said
    assert "the vLLM engine of deployment cpu-tiny died: signal 9" in said
    kept = folders(tmp_path, "vllm-anatomy")
    assert 1 <= len(kept) < 3
    assert not [*(tmp_path / "raw" / "vllm-anatomy").glob(".tmp-*")]


def worker_of(parent):
    """The engine's process."""
    for task in Path(f"/proc/{parent}/task").iterdir():
        for child in (task / "children").read_text().split():
            if "ssjf.harness.worker" in Path(f"/proc/{child}/cmdline").read_text():
                return int(child)
    raise AssertionError("no engine runs")


def test_a_profile_that_was_not_calibrated_is_one_sentence(tmp_path):
    done = process("run", "vllm-gpu", "--profile", "gpu-1b", env={"SSJF_RESULTS": str(tmp_path)})
    assert done.returncode == 2 and "unknown profile 'gpu-1b'" in done.stderr


def test_the_committed_pairs_are_of_the_same_requests():
    """Arrivals, lengths and seeds of a measured run are those of its simulated twin."""
    from ssjf.experiments import store

    specs = experiment("vllm-gain").specs()
    twins = {measured._twin(spec): spec for spec in specs if spec.engine == "simulator"}
    for spec in specs:
        if spec.engine == "vllm":
            ours, theirs = store.load(spec), store.load(twins[measured._twin(spec)])
            columns = ["x", "seed", "run", "arrived_at", "output_tokens"]
            assert list(ours) == list(theirs)
            pd.testing.assert_frame_equal(ours[columns], theirs[columns])
