"""Runs on Ray: the same rows as without it, and nothing is lost to whoever is killed."""

import json
import os
import signal
import sys
from contextlib import nullcontext

import pytest

from commands import one_sentence, process, refused, ssjf
from ssjf.errors import InputError
from ssjf.experiments import ray_grid, runner, store
from ssjf.experiments.grid import experiment
from ssjf.experiments.paths import environment
from test_resume import (
    COMMAND,
    ROOT,
    RUNS,
    everyone_ends,
    finished,
    in_this_process,
    killed_midway,
    rows,
)


def made_by_ray(folder):
    return {"ray", "node"} <= json.loads((folder / "env.json").read_text()).keys()


@pytest.mark.slow
def test_a_killed_driver_leaves_nothing_running_and_resumes_to_the_rows_without_ray(
    tmp_path, monkeypatch
):
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    child, _ = killed_midway(broken, kill=os.kill, more=["--ray"])
    kept = len(finished(broken))
    assert 0 < kept < RUNS

    resumed = process(*COMMAND, "--ray", cwd=ROOT, env={"SSJF_RESULTS": str(broken)})
    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert resumed.stdout == f"cv-sweep: {RUNS - kept} runs made, the others were there\n"
    assert all(map(made_by_ray, finished(broken)))

    assert in_this_process(whole, monkeypatch).exit_code == 0
    assert rows(broken) == rows(whole)
    assert not any(map(made_by_ray, finished(whole)))
    assert everyone_ends(child.pid)  # last: Ray's agents report to the dead driver for a minute


@pytest.mark.slow
def test_an_interrupt_ends_the_local_cluster_too(tmp_path):
    child, stderr = killed_midway(tmp_path, kill=os.kill, how=signal.SIGINT, more=["--ray"])
    assert everyone_ends(child.pid)
    assert child.returncode == 1 and "Traceback" not in stderr
    assert finished(tmp_path) and not [*tmp_path.rglob(".*")]


def killed_once(spec):
    """The rows, once one worker has been killed: as by ``kill -9``, in the middle of its run."""
    try:
        open(os.environ["SSJF_TEST_KILLED"], "x").close()
    except FileExistsError:
        return runner.execute(spec)
    os.kill(os.getpid(), signal.SIGKILL)


def somewhere_else(spec):
    """The rows, as made in another environment."""
    environment.cache_clear()
    os.environ["SSJF_ROOT"] = "/"
    return runner.execute(spec)


def wrong(spec):
    raise InputError("the draw is not here")


@pytest.mark.slow
def test_a_killed_worker_loses_nothing_and_what_a_worker_says_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    monkeypatch.setenv("SSJF_TEST_KILLED", str(tmp_path / "killed"))
    monkeypatch.setenv("SSJF_RESULTS", str(tmp_path))
    specs = experiment("cv-sweep").specs(1)[:4]
    with ray_grid.connected("local", 2):
        made = {
            store.digest(spec): (spec, *rest) for spec, *rest in ray_grid.each(killed_once, specs)
        }
        [(_, elsewhere, _)] = ray_grid.each(somewhere_else, specs[:1])
        with pytest.raises(InputError, match=r"^the draw is not here \(on node \S+\)$"):
            [*ray_grid.each(wrong, specs)]
    assert (tmp_path / "killed").exists()
    assert made.keys() == set(map(store.digest, specs))
    for spec, table, seconds in made.values():
        folder = store.save(spec, table, seconds)
        assert made_by_ray(folder)
        assert store.load(spec).drop(columns="run_id").equals(runner.execute(spec))

    # What is recorded is where the worker was, not the driver
    assert environment()["commit"] is not None
    folder = store.save(experiment("cv-sweep").specs(1)[4], elsewhere, 1.0)
    assert json.loads((folder / "env.json").read_text())["commit"] is None


def test_only_what_a_gpu_serves_goes_to_the_cluster_one_by_one(tmp_path, monkeypatch):
    asked, saved, here = [], [], []

    def each(rows_of, specs, gpus=0):
        asked.append((len(specs), gpus))
        return ((spec, None, 0.0) for spec in specs)

    monkeypatch.setenv("SSJF_RESULTS", str(tmp_path))
    monkeypatch.setattr(ray_grid, "each", each)
    monkeypatch.setattr(ray_grid, "connected", lambda *given: nullcontext(asked.append(given)))
    monkeypatch.setattr(store, "save", lambda spec, *rest: saved.append(spec))
    monkeypatch.setattr(runner, "_do", here.append)
    monkeypatch.setattr(runner, "_prepare", lambda specs: None)

    runner.run("vllm-gpu", jobs=3, ray="head:6379")
    engines = [spec.engine for spec in experiment("vllm-gpu").specs()]
    on_vllm = engines.count("vllm")
    assert asked == [("head:6379", 3, True), (engines.count("simulator"), 0), *[(1, 1)] * on_vllm]
    assert len(saved) == len(engines) and not here

    asked.clear()
    runner.run("vllm-gpu", deployment="cpu-tiny", ray="")
    assert asked == [("", 1, False), (engines.count("simulator"), 0)]
    assert len(here) == on_vllm


def test_a_gpu_that_no_node_has_is_told(monkeypatch):
    import ray

    monkeypatch.setattr(ray, "init", lambda *given, **options: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    with pytest.raises(InputError, match="need a GPU"), ray_grid.connected("local", 2, gpu=True):
        raise AssertionError("nothing is to run")


@pytest.mark.parametrize(("failures", "works"), [(2, True), (3, False)])
def test_a_local_cluster_that_is_slow_to_start_is_started_again(monkeypatch, failures, works):
    import ray

    left = [failures]

    def init(*given, **options):
        left[0] -= 1
        if left[0] >= 0:
            raise Exception("The current node timed out during startup.\nMore of it")

    monkeypatch.setattr(ray, "init", init)
    told = pytest.raises(InputError, match=r"at local \(The current node .* startup\.\)$")
    with nullcontext() if works else told, ray_grid.connected("local", 2):
        assert works


def test_without_ray_one_sentence_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setenv("SSJF_RESULTS", str(tmp_path))
    monkeypatch.setitem(sys.modules, "ray", None)
    assert refused(*COMMAND, "--ray").endswith("run pip install 'ssjf[ray]'")


def test_an_address_where_nobody_answers_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("SSJF_RESULTS", str(tmp_path))
    assert "no Ray cluster to run on at 127.0.0.1:9 (" in refused(*COMMAND, "--ray", "127.0.0.1:9")
    assert "nonsense (Invalid address" in refused(*COMMAND, "--ray", "nonsense")
    monkeypatch.setenv("RAY_ADDRESS", "[::1]:9")
    assert "at [::1]:9 (" in one_sentence(ssjf(*COMMAND, "--ray"))


def test_stored_runs_are_compared_on_this_machine():
    assert "--ray is for missing runs" in refused(*COMMAND, "--again", "--ray")
