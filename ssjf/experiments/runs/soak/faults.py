"""Fault injection in `ssjf serve`: a middleware between ours and vLLM, for a soak test.

The file ``fault`` in the folder ``$SSJF_SOAK`` names the current fault of the predictor. The file
``seen`` gets a line for each request: what vLLM received and answered (``SEEN``).
"""

import ctypes
import hashlib
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

from ssjf.serving.forecaster import Forecaster
from ssjf.serving.openai import Application, Message, Receive, Scope, Send

FOLDER, MARK = "SSJF_SOAK", b"x-soak"
SEEN = ("i", "priority", "sent", "status", "answered", "whole")
DELAY_SECONDS = 0.005
KILL_EVERY = 50  # requests


class Faults:
    """Records requests and answers, and injects faults into the predictor."""

    def __init__(self, app: Application) -> None:
        self._app, self._folder = app, Path(os.environ[FOLDER])
        self._seen = (self._folder / "seen").open("ab", buffering=0)
        self._count = 0
        if (self._folder / "fault").exists():
            _spoil(self._folder / "fault")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        if MARK not in headers:
            return await self._app(scope, receive, send)
        self._count += 1
        if self._count % KILL_EVERY == 0 and _word(self._folder / "fault") == "killed":
            _kill("ssjf-predictor")
        noted = Noted(receive, send)
        try:
            await self._app(scope, noted.receive, noted.send)
        finally:
            priority = headers.get(b"x-vllm-priority", b"")
            line = [headers[MARK], priority, *noted.told()]
            self._seen.write(b",".join(line) + b"\n")


class Noted:
    """Hashes a request's body and answer, and notes whether the answer was sent completely."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._body, self._answer = hashlib.sha1(), hashlib.sha1()
        self._status, self._whole = 0, False

    async def receive(self) -> Message:
        """Receive from the client."""
        message = await self._receive()
        self._body.update(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        """Send vLLM's answer."""
        await self._send(message)
        self._status = message.get("status", self._status)
        self._answer.update(message.get("body", b""))
        ended = message["type"] == "http.response.body" and not message.get("more_body", False)
        self._whole = self._whole or ended

    def told(self) -> list[bytes]:
        """The values of ``SEEN`` from the third on."""
        hashes = (short(self._body), short(self._answer))
        sent, answered = (each.encode() for each in hashes)
        return [sent, b"%d" % self._status, answered, b"%d" % self._whole]


def short(found: Any) -> str:
    """A shortened hash that still distinguishes requests."""
    return found.hexdigest()[:16]


def _word(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def _spoil(file: Path) -> None:
    """Inject the fault named in the file into every forecast of this process."""
    well = Forecaster._shipped

    def spoilt(self: Forecaster, request: Any) -> Any:
        fault = _word(file)
        if fault == "failing":
            raise RuntimeError("told to fail")
        if fault == "killed" and random.random() < 0.1:
            raise SystemExit
        if fault == "delayed":
            time.sleep(DELAY_SECONDS)
        tokens = well(self, request)
        return tokens * random.choice([1e-9, 0.01, 100, 1e9]) if fault == "wrong" else tokens

    Forecaster._shipped = spoilt  # type: ignore[method-assign]


def _kill(name: str) -> None:
    """Kill a thread at any point, with its current or its next call."""
    for thread in threading.enumerate():
        if thread.name == name:
            end = ctypes.py_object(SystemExit)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), end)
