"""The soak in its short form: a stub of vLLM behind the real middleware in a process of its own,
which suffers every fault; nothing is lost, altered or let before others."""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from ssjf.errors import InputError
from ssjf.experiments.runs.soak import faults, outcome
from ssjf.experiments.runs.soak import run as soak
from ssjf.experiments.specs import spec_of
from ssjf.harness.server import LiveServer, _free_port

STUB = """
import json, os, subprocess, sys, threading, uvicorn
sys.path.insert(0, {tests!r})
from serving_tools import answer, live, read, reply
from ssjf.experiments.runs.soak.faults import Faults
from ssjf.serving.middleware import Middleware
import prometheus_client

async def vllm(scope, receive, send):
    if scope["type"] == "lifespan":
        return await live(receive, send)
    if scope["path"] == "/health":
        return await reply(send)
    if scope["path"] == "/metrics":
        return await reply(send, prometheus_client.generate_latest(), kind=b"text/plain")
    body = await read(receive)
    try:
        asked = json.loads(body)
    except ValueError:
        return await reply(send, b"{{}}", 400)
    if not asked["stream"]:
        return await reply(send, json.dumps(answer(asked["max_tokens"], "length")).encode())
    kind = [(b"content-type", b"text/event-stream")]
    await send({{"type": "http.response.start", "status": 200, "headers": kind}})
    for _ in range(asked["max_tokens"]):
        event = b'data: {{"choices":[{{"text":"a","finish_reason":"length"}}]}}\\n\\n'
        await send({{"type": "http.response.body", "body": event, "more_body": True}})
    await send({{"type": "http.response.body", "body": b"data: [DONE]\\n\\n"}})

engine = subprocess.Popen(["sleep", "3600"])
threading.Thread(target=lambda: (engine.wait(), os.kill(os.getpid(), 15)), daemon=True).start()
try:
    uvicorn.run(Middleware(Faults(vllm)), port={port}, log_level="error", timeout_keep_alive=90)
finally:
    engine.kill()
"""


class Stub(LiveServer):
    """Started as a server is."""

    def __init__(self, model, vllm_options, middleware, variables):
        self.model, self.port = model, _free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="ssjf-server-"))
        self.log, self._process = self._folder / "server.log", None
        self._guard = None
        code = STUB.format(tests=os.path.dirname(__file__), port=self.port)
        self.command, self._variables = [sys.executable, "-c", code], {**variables, **middleware}


def spec(**workload):
    whole = {"requests": 1440, "connections": 16, "samples": 45, "output_tokens": 3} | workload
    return spec_of(
        {"experiment": "a", "protocol": "measured", "engine": "soak", "detail": "measurements",
         "series": "s", "deployment": "cpu-tiny", "slots": 4, "seed": 0, "serve": {},
         "workload": whole}, "test")  # fmt: skip


ALL = ["none", "failing", "killed", "delayed", "wrong", "disk full", "terminated",
       "engine killed", "none"]  # fmt: skip


def test_no_request_is_lost_altered_or_let_before_others(monkeypatch):
    monkeypatch.setattr(soak.server, "LiveServer", Stub)
    monkeypatch.setattr(soak.server, "_model", lambda shape: Path("model"))
    monkeypatch.setattr(soak.server, "hardware", dict)
    rows = soak.rows(spec(faults=ALL))
    totals = rows[["sent", "answered", "broken", "lost", "altered", "jumped", "early"]].sum()
    assert totals[["lost", "altered", "jumped", "early"]].tolist() == [0, 0, 0, 0]
    left = 1440 // soak.LEAVING
    assert totals["sent"] == 1440 and totals["answered"] + totals["broken"] + left == 1440
    assert totals["broken"] <= 2 * 16 and rows["life"].max() == 2
    assert set(rows["fault"]) == set(ALL) and rows["fault"].tolist()[0] == "none"
    assert rows["refused"].sum() == pytest.approx(1440 / 20, abs=5)  # those that are no JSON
    assert (rows["cpu_seconds"] > 0.1).sum() > 30 and (rows["engine_cpu_seconds"] >= 0).sum() > 30
    assert (rows["rss_mb"] > 20).sum() > 30 and rows["put_back_seconds"].notna().sum() > 30


def test_what_was_altered_lost_or_jumped_is_seen():
    given = {"sent": "b", "status": "200", "answered": "a", "whole": "1", "priority": "5000"}
    sent = outcome.Sent(at=4.0, sample=0, body="b", outcome="answered", status=200, answer="a")
    found = outcome.compared(sent, given)
    assert found["put_back_seconds"] == 1 and found["answered"] == 1
    assert not any(found[name] for name in ("lost", "altered", "jumped", "early", "broken"))
    for change in ({"sent": "x"}, {"answered": "x"}, {"status": "500"}):
        assert outcome.compared(sent, given | change)["altered"] == 1
    assert outcome.compared(sent, None)["altered"] == 1
    ended = given | {"status": "0", "answered": "", "whole": "0"}
    assert outcome.compared(sent, ended)["altered"] == 1
    own = outcome.Sent(at=4.0, sample=0, body="b", outcome="answered", status=500, answer="w")
    assert outcome.compared(own, ended)["altered"] == 0
    assert outcome.compared(sent, given | {"priority": "3000"})["early"] == 1
    ages = outcome.Sent(at=4e4, sample=0, body="b", outcome="answered", status=200, answer="a")
    assert outcome.compared(ages, given | {"priority": "-7"})["jumped"] == 1
    sent.outcome = "broken"
    assert outcome.compared(sent, given)["lost"] == 1  # vLLM had answered it whole
    assert outcome.compared(sent, given | {"whole": "0"})["broken"] == 1
    sent.outcome = "lost"
    assert outcome.compared(sent, None)["lost"] == 1


def test_a_fault_that_is_none_is_one_sentence():
    said = r"workload.faults.0 is 'hungry'; it must be 'none', 'failing', 'killed'"
    with pytest.raises(InputError, match=said):
        spec(faults=["hungry"])
    assert np.isfinite(faults.DELAY_SECONDS)
