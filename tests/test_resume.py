"""A killed experiment goes on where it was: no finished run is lost, changed or half-written."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from commands import contents, process, ssjf

ROOT = Path(__file__).resolve().parents[1]
COMMAND = ["run", "cv-sweep", "--seeds", "1", "--jobs", "2"]
RUNS = 12


def finished(results):
    return [path for path in (results / "raw" / "cv-sweep").glob("[0-9a-f]*")]


def killed_midway(results, kill=os.killpg, how=signal.SIGKILL, when=None, more=()):
    """Start the experiment and kill its process group (or it alone) once a run has finished.

    Or once ``when``, a function of the process's id, says so. ``more`` joins the command.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", "ssjf", *COMMAND, *more],
        env=os.environ | {"SSJF_RESULTS": str(results)},
        cwd=ROOT,
        start_new_session=True,
        stderr=subprocess.PIPE,
        # Where the tests themselves run in the background an interrupt is ignored, and inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while not (when(child.pid) if when else finished(results)):
            assert child.poll() is None, child.stderr.read()
            time.sleep(0.005)
    finally:
        kill(child.pid, how)
        stderr = child.communicate()[1]  # comes when no worker holds the pipe any more
    return child, stderr.decode()


def rows(results):
    return {name: data for name, (data, _) in contents(results).items() if name.endswith("parquet")}


def in_this_process(results, monkeypatch):
    """The same command, one run after the other."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("SSJF_RESULTS", str(results))
    return ssjf(*COMMAND[:-1], 1)


def test_a_killed_experiment_resumes_and_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    killed_midway(broken)
    assert 0 < len(finished(broken)) < RUNS
    kept = {path.name: contents(path) for path in finished(broken)}
    (broken / "raw" / "cv-sweep" / ".tmp-left").mkdir()  # as if it died in the middle of a write

    resumed = process(*COMMAND, cwd=ROOT, env={"SSJF_RESULTS": str(broken)})
    assert resumed.stdout == f"cv-sweep: {RUNS - len(kept)} runs made, the others were there\n"
    assert resumed.returncode == 0, resumed.stderr
    for name, before in kept.items():
        assert contents(broken / "raw" / "cv-sweep" / name) == before
    assert not [*broken.rglob(".*")]

    assert in_this_process(whole, monkeypatch).exit_code == 0
    assert len(finished(whole)) == RUNS
    assert rows(broken) == rows(whole)

    before = contents(broken)
    third = in_this_process(broken, monkeypatch)
    assert third.stdout == "cv-sweep: 0 runs made, the others were there\n"
    assert contents(broken) == before


def members(session):
    """The processes of a session."""
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "sid,pid,args"], capture_output=True, text=True
    ).stdout
    return [line for line in listed.splitlines()[1:] if line.split()[0] == str(session)]


def everyone_ends(session):
    """Whether all processes of a session end, for which they have minutes."""
    deadline = time.monotonic() + 600
    while members(session) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not members(session)


def test_workers_end_when_their_parent_alone_is_killed(tmp_path):
    child, _ = killed_midway(tmp_path, kill=os.kill)
    assert everyone_ends(child.pid)


def importing(session):
    """Whether a worker of the session is in the middle of its imports."""
    workers = [line.split()[1] for line in members(session) if "spawn_main" in line]
    maps = [Path("/proc", worker, "maps") for worker in workers]
    return any("pandas" in each.read_text() for each in maps if each.exists())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc, as Linux has it")
def test_an_interrupt_while_workers_start_ends_without_a_traceback(tmp_path):
    child, stderr = killed_midway(tmp_path, how=signal.SIGINT, when=importing)
    assert child.returncode == 1 and "Traceback" not in stderr
    assert not [*tmp_path.rglob(".*")]


def test_an_interrupt_ends_it_without_a_traceback_and_keeps_what_is_done(tmp_path):
    child, stderr = killed_midway(tmp_path, how=signal.SIGINT)
    assert child.returncode == 1 and "Traceback" not in stderr
    assert finished(tmp_path) and not [*tmp_path.rglob(".*")]
