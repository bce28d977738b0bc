"""Requests to ``ssjf serve`` on a real vLLM while it suffers one fault after the other: is one
lost, altered, let before others, or is memory?

What vLLM was given and gave (``faults.Faults``, in the server) is compared with what a client sent
and received, request by request. A row is a sample of the run.
"""

import asyncio
import json
import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha1
from pathlib import Path
from typing import Any

import pandas as pd

from ssjf.config import SERVE_PREFIX
from ssjf.experiments.runs import chats, server
from ssjf.experiments.runs.soak.faults import FOLDER, short
from ssjf.experiments.runs.soak.outcome import Sample, Sent, outcome
from ssjf.experiments.specs import SoakRun
from ssjf.harness.deployment import deployment
from ssjf.harness.server import Connection, LiveServer, environment, options_of
from ssjf.serving.options import ServeOptions

AGAIN_SECONDS = 0.2  # until a server that has gone is asked again
LEAVING = 97  # one request of so many is given up by its client
TO_SAMPLE = ("unpredicted_total", "learned_total", "state_saves_total", "contract_tail_ratio")
ENDS = ("terminated", "engine killed")


def rows(spec: SoakRun) -> pd.DataFrame:
    """A row per sample: what has been sent and answered since the one before, and what was wrong.

    Columns: at_seconds, life (of the server, from 0), fault; sent, answered, refused (vLLM's own
    answer was an error), broken (no whole answer, of a server that ended), lost, altered, jumped
    (the priority is a client's), early (it is before the arrival), put_back_seconds (the most that
    it is behind); rss_mb and cpu_seconds of the server's process, engine_cpu_seconds of those that
    it started; and of its metrics those ``TO_SAMPLE``.
    """
    with tempfile.TemporaryDirectory(prefix="ssjf-soak-") as folder:
        soak = Soak(spec, Path(folder))
        try:
            asyncio.run(soak.run())
        finally:
            soak.live.close()
        sent, seen = soak.sent, Path(folder) / "seen"
        table = outcome(soak.samples, sent, seen, soak.connections, spec.seed)
    table.attrs["environment"] = server.hardware() | {"clock": "of the client"}
    return table


class Soak:
    """One run: clients, faults, and the server, which is started again where it ends."""

    def __init__(self, spec: SoakRun, folder: Path) -> None:
        self._load, self._spec, self._folder = spec.workload, spec, folder
        self.connections = spec.workload.connections
        self._prompts, self.sent = chats.made_up_prompts(), dict[int, Sent]()
        self.samples: list[Sample] = []
        self._life, self._began, self._up = 0, time.monotonic(), True
        if set(self._load.faults) != {"none"}:
            (folder / "fault").write_text("none")
        self.live = self._server()

    def _server(self) -> LiveServer:
        """``ssjf serve`` with the options of the run, or vLLM's own where it has none."""
        has, given = deployment(self._spec.deployment), self._spec.serve
        model = has.folder() or server._model(str(has.shape))
        between = ["--middleware", "ssjf.experiments.runs.soak.faults.Faults",
                   "--disable-uvicorn-access-log"]  # fmt: skip
        arguments = [*options_of(has, self._spec.slots, model), *between]
        told = {FOLDER: str(self._folder), "PYTHONFAULTHANDLER": "1"}
        if given is None:
            ordered = [*arguments, "--scheduling-policy", "priority"]
            return LiveServer(str(model), ordered, variables=environment(str(model)) | told)
        named = {f"{SERVE_PREFIX}{name.upper()}": str(value) for name, value in given.items()}
        if "disk full" in self._load.faults:  # else nothing is saved, as by default
            named |= {f"{SERVE_PREFIX}STATE": str(self._folder / "state"),
                      f"{SERVE_PREFIX}SAVE_SECONDS": "0.2"}  # fmt: skip
        options = ServeOptions.from_environment(named).environment()
        return LiveServer(str(model), arguments, options | told)

    async def run(self) -> None:
        """Send all requests."""
        self.live.start()  # in this thread, which lives as long as the server shall
        numbers = iter(range(self._load.requests))
        full = asyncio.create_task(self._fill_the_disk())
        await asyncio.gather(*(self._client(numbers) for _ in range(self._load.connections)))
        full.cancel()
        await self._sample()

    # What happens to the server

    def _fault(self, i: int) -> str:
        each = -(-self._load.requests // len(self._load.faults))
        return self._load.faults[i // each]

    async def _before(self, i: int) -> None:
        """What is due when request i is."""
        each = -(-self._load.requests // len(self._load.faults))
        if i % each == 0 and (self._folder / "fault").exists():
            (self._folder / "fault").write_text(self._fault(i))
        if i % -(-self._load.requests // self._load.samples) == 0:
            await self._sample(self._fault(i))
        if i % each == each // 2 and self._fault(i) in ENDS:
            await self._end(self._fault(i))

    async def _end(self, how: str) -> None:
        """Have the server or its engine end in the middle of its work, and start another one."""
        self._up = False
        if how == "terminated":
            os.kill(self.live.pid, signal.SIGTERM)
        else:
            for pid in _children(self.live.pid):
                os.kill(pid, signal.SIGKILL)
        await self._again()

    async def _again(self) -> None:
        """Wait for the server to end, and start another one."""
        self._up = False
        await asyncio.to_thread(self.live.ended, 60)
        self.live.close()
        self._life += 1
        self.live = self._server()
        self.live.launch()
        await asyncio.to_thread(self.live.wait)
        self._up = True

    async def _fill_the_disk(self) -> None:
        """Have the state file written to a device that is full, again and again."""
        while True:
            await asyncio.sleep(AGAIN_SECONDS)
            if self._up and self.samples and self.samples[-1].fault == "disk full":
                with suppress(FileExistsError):
                    partial = self._folder / f".state.{self.live.pid}.tmp"
                    partial.symlink_to("/dev/full")

    async def _sample(self, fault: str = "none") -> None:
        sample = Sample(time.monotonic() - self._began, self._life, fault)
        self.samples.append(sample)
        with suppress(Exception):  # it has just ended
            status = Path(f"/proc/{self.live.pid}/status").read_text()
            sample.rss_mb = int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024
            sample.cpu_seconds = _cpu_seconds(self.live.pid)
            sample.engine_cpu_seconds = sum(map(_cpu_seconds, _children(self.live.pid)))
            text = await asyncio.to_thread(self.live.get, "/metrics")
            found = re.findall(r"^ssjf_(\w+?)(\{.*\})? (\S+)$", text, re.MULTILINE)
            for name, labels, value in found:
                if name in TO_SAMPLE:
                    called = "_".join([name, *re.findall(r'="(failed|p99|p999)"', labels)])
                    sample.metrics[called] = sample.metrics.get(called, 0.0) + float(value)

    # What clients do

    async def _client(self, numbers: Iterator[int]) -> None:
        connection = Connection()
        for i in numbers:
            await self._before(i)
            body, headers = self._request(i)
            sent = Sent(time.monotonic(), len(self.samples) - 1, short(sha1(body)))
            while True:
                try:
                    await connection.open(self.live.port)
                    break
                except OSError:  # never sent: there is no server just now
                    if self._up and self.live.ended(0):  # by itself: its engine died
                        await self._again()
                    await asyncio.sleep(AGAIN_SECONDS)
            sent.at, self.sent[i] = time.monotonic(), sent
            try:
                if i % LEAVING == LEAVING - 1:
                    connection.send(body, headers)
                    sent.outcome = "left"
                    connection.close()
                else:
                    sent.status, answer = await connection.answered(body, headers)
                    sent.outcome, sent.answer = "answered", short(sha1(answer))
            except (OSError, EOFError, ValueError):
                going = not self._up or self.live.ended(1)
                sent.outcome = "broken" if going else "lost"
                connection.close()
        connection.close()

    def _request(self, i: int) -> tuple[bytes, dict[str, str]]:
        """Body and headers: streamed or not, text or not, and some that claim to go first."""
        kind = i % 20
        prompt: Any = f"{self._prompts[i % len(self._prompts)]} ({i})"
        body = {"model": self.live.model, "prompt": [5, 6, 7] if kind == 3 else prompt,
                "max_tokens": self._load.output_tokens, "ignore_eos": True, "stream": kind % 4 == 1,
                "user": f"user {i % 7}"}  # fmt: skip
        if kind == 5:
            body["priority"] = -5
        text = json.dumps(body)
        headers = {"x-soak": str(i)} | ({"X-Vllm-Priority": "-7"} if kind == 6 else {})
        return (text[:-5] if kind == 7 else text).encode(), headers


def _children(pid: int) -> list[int]:
    """Those of a process, and theirs."""
    file = Path(f"/proc/{pid}/task/{pid}/children")
    found = [int(each) for each in file.read_text().split()]
    return found + [each for child in found for each in _children(child)]


def _cpu_seconds(pid: int) -> float:
    """What a process has had of the processor's time."""
    after_its_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, after_its_name[11:13])) / os.sysconf("SC_CLK_TCK")
