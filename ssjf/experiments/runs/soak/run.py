"""Requests to ``ssjf serve`` on a real vLLM through a series of faults.

Is a request lost, altered or let before others, and does memory leak? What vLLM received and
answered (``faults.Faults``, in the server) is compared with what a client sent and received,
request by request. A row is a sample of the run.
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

import httpx
import pandas as pd

from ssjf.experiments.runs import chats, server
from ssjf.experiments.runs.soak.faults import FOLDER, short
from ssjf.experiments.runs.soak.outcome import Sample, Sent, outcome
from ssjf.experiments.specs import SoakRun
from ssjf.harness.deployment import deployment
from ssjf.harness.server import HOST, LiveServer

AGAIN_SECONDS = 0.2  # until a server that has gone is asked again
LEAVING = 97  # one request of so many is given up by its client
TO_SAMPLE = ("unpredicted_total", "learned_total", "state_saves_total", "contract_tail_ratio")
ENDS = ("terminated", "engine killed")


def rows(spec: SoakRun) -> pd.DataFrame:
    """Make a row per sample: what was sent and answered since the sample before, and what failed.

    Columns: at_seconds, life (starts of the server before this one), fault; the numbers of requests
    sent, answered, refused (vLLM's own answer was an error), broken (no whole answer: the server
    ended), lost, altered, jumped (the priority is a client's) and early (the priority is before the
    arrival); put_back_seconds (the most that a priority is behind the arrival); rss_mb and
    cpu_seconds of the server's process, engine_cpu_seconds of the processes that it started; and of
    its metrics those in ``TO_SAMPLE``.
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
    """One run: clients, faults, and the server, which is started again when it ends."""

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
        """Make ``ssjf serve`` with the options of the run, or ``vllm serve`` if it has none."""
        spec, given = self._spec, self._spec.serve
        more = ["--middleware", "ssjf.experiments.runs.soak.faults.Faults",
                "--disable-uvicorn-access-log"]  # fmt: skip
        if given is None:
            more += ["--scheduling-policy", "priority"]
        elif "disk full" in self._load.faults:  # else nothing is saved, as by default
            given = given | {"state": str(self._folder / "state"), "save_seconds": 0.2}
        variables = {FOLDER: str(self._folder), "PYTHONFAULTHANDLER": "1"}
        options = server.options_from(given)
        return server.live_server(deployment(spec.deployment), spec.slots, options, more, variables)

    async def run(self) -> None:
        """Send all requests."""
        self.live.start()  # in this thread, whose end would end the server
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
        """Change the fault, sample or end the server if request i is the one to do it at."""
        each = -(-self._load.requests // len(self._load.faults))
        if i % each == 0 and (self._folder / "fault").exists():
            (self._folder / "fault").write_text(self._fault(i))
        if i % -(-self._load.requests // self._load.samples) == 0:
            await self._sample(self._fault(i))
        if i % each == each // 2 and self._fault(i) in ENDS:
            await self._end(self._fault(i))

    async def _end(self, how: str) -> None:
        """End the server or kill its engine in the middle of its work, and start another server."""
        self._up = False
        if how == "terminated":
            os.kill(self.live.pid, signal.SIGTERM)
        else:
            for pid in _children(self.live.pid):
                os.kill(pid, signal.SIGKILL)
        await self._again()

    async def _again(self) -> None:
        """Wait for the server to end, and start another."""
        self._up = False
        await asyncio.to_thread(self.live.ended, 60)
        self.live.close()
        self._life += 1
        self.live = self._server()
        self.live.launch()
        await asyncio.to_thread(self.live.wait)
        self._up = True

    async def _fill_the_disk(self) -> None:
        """Point the state file's temporary file at a full device, again and again."""
        while True:
            await asyncio.sleep(AGAIN_SECONDS)
            if self._up and self.samples and self.samples[-1].fault == "disk full":
                with suppress(FileExistsError):
                    partial = self._folder / f".state.{self.live.pid}.tmp"
                    partial.symlink_to("/dev/full")

    async def _sample(self, fault: str = "none") -> None:
        sample = Sample(time.monotonic() - self._began, self._life, fault)
        self.samples.append(sample)
        with suppress(Exception):  # the server has just ended
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
        # verify: reading certificates would take long, and nothing is encrypted
        async with httpx.AsyncClient(timeout=None, trust_env=False, verify=False) as client:
            for i in numbers:
                await self._before(i)
                await self._send(client, i)

    async def _send(self, client: httpx.AsyncClient, i: int) -> None:
        """Send request i, repeated until a server takes it, and note what became of it."""
        body, headers = self._request(i)
        leaves = i % LEAVING == LEAVING - 1  # once the request is sent
        timeout = httpx.Timeout(None, read=1e-6 if leaves else None)
        sent = Sent(0.0, len(self.samples) - 1, short(sha1(body)), "left" if leaves else "")
        self.sent[i] = sent
        while True:
            sent.at = time.monotonic()
            try:
                url = f"http://{HOST}:{self.live.port}/v1/completions"
                answer = await client.post(url, content=body, headers=headers, timeout=timeout)
                sent.status, sent.answer = answer.status_code, short(sha1(answer.content))
                sent.outcome = sent.outcome or "answered"
                return
            except httpx.ConnectError:  # not sent: no server is up
                if self._up and self.live.ended(0):  # by itself: its engine died
                    await self._again()
                await asyncio.sleep(AGAIN_SECONDS)
            except httpx.HTTPError:
                going = leaves or not self._up or self.live.ended(1)
                sent.outcome = sent.outcome or ("broken" if going else "lost")
                return

    def _request(self, i: int) -> tuple[bytes, dict[str, str]]:
        """Make body and headers: streamed or not, text or tokens, some claiming a priority."""
        kind = i % 20
        prompt: Any = f"{self._prompts[i % len(self._prompts)]} ({i})"
        body = {"model": self.live.model, "prompt": [5, 6, 7] if kind == 3 else prompt,
                "max_tokens": self._load.output_tokens, "ignore_eos": True, "stream": kind % 4 == 1,
                "user": f"user {i % 7}"}  # fmt: skip
        if kind == 5:
            body["priority"] = -5
        text = json.dumps(body)
        headers = {"x-soak": str(i), "content-type": "application/json"}
        if kind == 6:
            headers["X-Vllm-Priority"] = "-7"
        return (text[:-5] if kind == 7 else text).encode(), headers


def _children(pid: int) -> list[int]:
    """Find the child processes of a process, and theirs."""
    file = Path(f"/proc/{pid}/task/{pid}/children")
    found = [int(each) for each in file.read_text().split()]
    return found + [each for child in found for each in _children(child)]


def _cpu_seconds(pid: int) -> float:
    """Read the processor time that a process has used."""
    after_its_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, after_its_name[11:13])) / os.sysconf("SC_CLK_TCK")
