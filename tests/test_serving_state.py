"""The state's file: whole or the one before, whenever the process is killed."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_tools import (
    COMPLETIONS,
    PATIENT,
    FakeProxy,
    counting,
    serving,
    until,
    wrapped,
)
from ssjf.errors import InputError
from ssjf.serving.forecaster import Refitting
from ssjf.serving.online import StateFile
from ssjf.serving.options import ServeOptions
from ssjf.serving.predictor import load
from test_serving_learning import FREE, Script, answer


def state_at(folder):
    return StateFile(folder / "learned", "refit", "0" * 64)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=3))
def test_what_was_written_last_is_read(tmp_path_factory, written):
    folder = tmp_path_factory.mktemp("state")
    state = state_at(folder)
    assert state.read() is None
    for each in written:
        state.write(each)
    assert state.read() == written[-1] and names(folder) == ["learned"]


@given(st.integers(0, 10**6), st.sampled_from(["cut", "flip", "longer"]))
def test_any_damage_is_found_and_the_file_put_aside(tmp_path_factory, at, how):
    folder = tmp_path_factory.mktemp("state")
    state = state_at(folder)
    state.write(b"what was learned\n" * 3)
    data = bytearray(state.path.read_bytes())
    at %= len(data)
    if how == "cut":
        del data[at:]
    elif how == "flip":
        data[at] ^= 1
    else:
        data += b"\n"
    state.path.write_bytes(data)
    assert state.read() is None
    assert names(folder) == ["learned.aside-1"]
    assert (folder / "learned.aside-1").read_bytes() == data


def test_a_state_of_another_proxy_or_way_is_put_aside_beside_the_first(tmp_path, caplog):
    for other in (StateFile(tmp_path / "learned", "calibration", "0" * 64),
                  StateFile(tmp_path / "learned", "refit", "1" * 64)):  # fmt: skip
        other.write(b"a")
        assert state_at(tmp_path).read() is None
    assert names(tmp_path) == ["learned.aside-1", "learned.aside-2"]
    assert len(caplog.messages) == 2 and "is kept as" in caplog.text


def test_a_disk_that_is_full_leaves_the_state_before(tmp_path, monkeypatch):
    state = state_at(tmp_path)
    state.write(b"before")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        state.write(b"after")
    assert state.read() == b"before" and names(tmp_path) == ["learned"]


@pytest.mark.parametrize(
    "path, says", [("no/file", "a folder that is there"), (".", "must be a file")]
)
def test_a_place_that_is_none_is_one_sentence(tmp_path, path, says):
    with pytest.raises(InputError, match=says):
        StateFile(tmp_path / path, "refit", "").check()


# Killed


DYING = """
import os, signal, sys
from pathlib import Path
from ssjf.serving.online import StateFile
state = StateFile(Path(sys.argv[1]), "refit", "0" * 64)
state.write(b"before" * 10**5)
real = getattr(os, sys.argv[2])
def dying(*given):
    if sys.argv[3] == "after":
        real(*given)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(os, sys.argv[2], dying)
state.write(b"after" * 10**5)
"""


@pytest.mark.parametrize(
    "call, when, found",
    [("fsync", "before", b"before"), ("fsync", "after", b"before"),
     ("replace", "before", b"before"), ("replace", "after", b"after")],
)  # fmt: skip
def test_a_process_that_is_killed_while_it_saves(tmp_path, call, when, found):
    command = [sys.executable, "-c", DYING, str(tmp_path / "learned"), call, when]
    assert subprocess.run(command, timeout=600).returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == 1 + (found == b"before")
    assert state_at(tmp_path).read() == found * 10**5
    assert names(tmp_path) == ["learned"]  # what was half written is gone


SERVER = """
import os, signal, sys, uvicorn
sys.path.insert(0, sys.argv[1])
import serving_tools
from ssjf.serving import Middleware
from test_serving_learning import Script, answer
script = Script()
script.says(answer(30))
real, saved = os.fsync, []
def dying(file):
    real(file)
    saved.append(file)
    if len(saved) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
os.fsync = dying
config = uvicorn.Config(Middleware(script), port=0, log_level="error")
server = uvicorn.Server(config)
async def told(sockets=None, start=server.startup):
    await start(sockets)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
server.startup = told
server.run()
"""


def test_a_server_that_is_killed_while_it_saves_goes_on_with_the_save_before(tmp_path):
    environ = os.environ | {"SSJF_SERVE_STATE": str(tmp_path / "learned"),
                            "SSJF_SERVE_SAVE_SECONDS": "0.1"}  # fmt: skip
    command = [sys.executable, "-c", SERVER, str(Path(__file__).parent)]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True)
    try:
        address = f"http://127.0.0.1:{int(process.stdout.readline())}"
        while process.poll() is None:
            try:
                httpx.post(address + COMPLETIONS, json=FREE | {"prompt": "a", "model": "m"})
            except httpx.HTTPError:
                break
    finally:
        process.kill()
    assert process.wait(600) == -signal.SIGKILL
    assert len(names(tmp_path)) == 2
    found = load(ServeOptions(state=str(tmp_path / "learned"))).forecaster
    assert len(found.learners["m"]) > 0 and names(tmp_path) == ["learned"]


# In a server


def served(folder, requests=3, **options):
    """Have a server learn from so many requests and stop; the prompts it was asked."""
    script = Script()
    script.says(answer(30))
    middleware = wrapped(script, state=state_at(folder), **PATIENT, **options)
    with serving(middleware) as address:
        for i in range(requests):
            with counting("learned_total"):
                body = FREE | {"prompt": f"secret {i + 1}", "model": "m"}
                httpx.post(address + COMPLETIONS, json=body)
        yield
    yield


def test_a_server_that_stops_saves_what_it_learned_and_no_prompt(tmp_path):
    with counting("state_saves_total", outcome="saved"):
        for _ in served(tmp_path, save_seconds=86_400):
            pass
    state = state_at(tmp_path).read()
    assert b"secret" not in state
    found = Refitting(FakeProxy())
    found.restore(state)
    assert len(found.learners["m"]) == 3


def test_a_server_saves_as_it_goes_on(tmp_path):
    running = served(tmp_path, save_seconds=0.1)
    next(running)
    until(state_at(tmp_path).path.exists)  # who reads it removes what is just being written
    next(running)
    assert state_at(tmp_path).read() is not None


def test_a_state_that_is_too_large_is_not_written(tmp_path, caplog):
    with counting("state_saves_total", outcome="too_large"):
        for _ in served(tmp_path, requests=20, max_state_mb=0.0001):
            pass
    assert names(tmp_path) == [] and "is not saved" in caplog.text


def test_a_state_that_cannot_be_written_costs_no_request(tmp_path, caplog):
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    with counting("state_saves_total", outcome="failed"):
        for _ in served(nowhere, save_seconds=86_400):
            pass
    assert "is not saved" in caplog.text and "secret" not in caplog.text


class Slow:
    """Takes so many seconds of a clock of its own to predict."""

    def __init__(self, seconds):
        self.seconds, self.now = seconds, 0.0

    def predict(self, prompts):
        self.now += self.seconds
        return FakeProxy().predict(prompts)


@pytest.mark.parametrize(
    "seconds, deadline_ms, alone, last",
    [(0.023, None, 0.092, 0.92), (0.001, None, 0.05, 0.05), (0.3, None, 1.2, 2.0),
     (0.023, 5, 0.005, 0.005)],
)  # fmt: skip
def test_the_deadline_is_four_times_what_predictions_take(
    monkeypatch, caplog, seconds, deadline_ms, alone, last
):
    """Of the request and of those before it; no more than two seconds."""
    slow = Slow(seconds)
    monkeypatch.setattr("ssjf.proxy.io.load", lambda _: slow)
    monkeypatch.setattr("ssjf.serving.forecaster.time.perf_counter", lambda: slow.now)
    with caplog.at_level(logging.INFO):
        found = load(ServeOptions(deadline_ms=deadline_ms))
    assert found.deadline_seconds(0) == pytest.approx(alone)
    assert found.deadline_seconds(9) == pytest.approx(last)
    assert f"requests wait up to {1000 * alone:.3g} ms" in caplog.text


def test_the_shipped_proxy_goes_on_with_its_state_and_not_with_what_is_none(tmp_path, caplog):
    options = ServeOptions(state=str(tmp_path / "learned"))
    caplog.set_level(logging.WARNING)
    predictor = load(options)
    predictor.learner._state.write(b'{"m": {"format": 0}}')
    found = load(options).forecaster
    assert not found.learners and "is not used: SafetensorError" in caplog.text
    assert names(tmp_path) == ["learned.aside-1"]
