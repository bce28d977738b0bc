"""A vLLM server for a measurement: started, queried over HTTP, ended with this process."""

import asyncio
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from ssjf.config import SERVE_PREFIX
from ssjf.errors import InputError
from ssjf.harness.deployment import Deployment
from ssjf.harness.interpreter import ABSENT, end_with_the_parent, python, variables
from ssjf.harness.worker import SETTINGS

HOST = "127.0.0.1"
STARTING_SECONDS, STOPPING_SECONDS = 900, 30
# What an engine in a worker is given and a server is not: it has a tokenizer and metrics.
NOT_FOR_SERVERS = {"model", "skip_tokenizer_init", "scheduling_policy", "async_scheduling",
                   "disable_log_stats"}  # fmt: skip
# Once its input ends, as it does with whoever holds its other end: vLLM killed while it starts, or
# without a chance to say goodbye, leaves its engine behind.
GUARD = "cat >/dev/null; kill -s TERM -- -{0} && sleep 10 && kill -s KILL -- -{0}"
# vLLM closes a connection that was idle for 5 s; its own bench keeps them for 60 s, and can fail
# where it sends at that moment.
KEEP_ALIVE = {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "90"}


def options_of(deployment: Deployment, max_num_seqs: int, model: Path) -> list[str]:
    """A deployment as options of ``vllm serve``, with batches of at most that many requests."""
    options: list[str] = []
    for name, value in deployment.replace(slots=max_num_seqs).engine_arguments(model).items():
        flag = name.replace("_", "-")
        if name in NOT_FOR_SERVERS:
            continue
        if isinstance(value, bool):
            options.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            options += [f"--{flag}", json.dumps(value) if isinstance(value, dict) else str(value)]
    return options


def environment(model: str) -> dict[str, str]:
    """Variables of a server or its client: this process's, without options of ``ssjf serve``, and
    where they are not set those of ``SETTINGS`` and ``KEEP_ALIVE``."""
    settings = SETTINGS | KEEP_ALIVE
    if not Path(model).is_dir():
        settings.pop("HF_HUB_OFFLINE")
    kept = {name: text for name, text in variables().items() if not name.startswith(SERVE_PREFIX)}
    return settings | kept


class LiveServer:
    """``vllm serve MODEL``, or ``ssjf serve MODEL`` where ``middleware`` is given.

    ``middleware``: the variables of its options (``ServeOptions.environment``). ``variables``: its
    whole environment, instead of ``environment``.
    InputError, in one sentence, where vLLM is absent, does not start, or has died.
    """

    def __init__(
        self,
        model: str,
        vllm_options: Sequence[str] = (),
        middleware: Mapping[str, str] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        interpreter = python()
        if interpreter is None:
            raise InputError(ABSENT)
        self.model, self.port = model, _free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="ssjf-server-"))
        self.log = self._folder / "server.log"  # what it printed
        command = "vllm.entrypoints.cli.main" if middleware is None else "ssjf"
        arguments = [model, *vllm_options, "--host", HOST, "--port", str(self.port)]
        self.command = [interpreter, "-m", command, "serve", *arguments]
        own = environment(model) if variables is None else variables
        self._variables = {**own, **(middleware or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start it; from a thread that lives as long as it shall."""
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self.command,
                env=self._variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # an interrupt is ours to pass on
                preexec_fn=end_with_the_parent,
            )
        guard, nowhere = ["sh", "-c", GUARD.format(self._process.pid)], subprocess.DEVNULL
        self._guard = subprocess.Popen(
            guard, stdin=subprocess.PIPE, stdout=nowhere, stderr=nowhere, start_new_session=True
        )

    @property
    def pid(self) -> int:
        """Of the process that was started."""
        assert self._process is not None
        return self._process.pid

    def ended(self, seconds: float | None = None) -> bool:
        """Whether it has ended by itself after at most so many seconds, or however many."""
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.returncode is not None

    def wait(self, seconds: float = STARTING_SECONDS) -> None:
        """Wait until it answers; end it where it does not."""
        end = time.monotonic() + seconds
        try:
            while not self._answers():
                assert self._process is not None
                if self._process.poll() is not None:
                    raise InputError(
                        f"the server of {self.model} did not start: {self._last_words()}"
                    )
                if time.monotonic() > end:
                    raise InputError(f"the server of {self.model} took over {seconds:g} s")
                time.sleep(0.1)
        except BaseException:
            self.close()
            raise

    def _answers(self) -> bool:
        try:
            return self._request("/health")[0] == 200
        except OSError:
            return False

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a JSON body."""
        return json.loads(self.get(path, json.dumps(body)))

    def get(self, path: str, body: str | None = None) -> str:
        """The text at a path, or the answer to a body posted there."""
        try:
            status, text = self._request(path, body)
        except OSError:
            raise InputError(f"the server of {self.model} died: {self._last_words()}") from None
        if status != 200:
            raise InputError(f"the server of {self.model} answers {path} with status {status}")
        return text

    def _request(self, path: str, body: str | None = None) -> tuple[int, str]:
        method, header = "GET" if body is None else "POST", {"content-type": "application/json"}
        with closing(http.client.HTTPConnection(HOST, self.port, timeout=600)) as connection:
            try:
                connection.request(method, path, body, header)
                response = connection.getresponse()
                return response.status, response.read().decode()
            except http.client.HTTPException as error:
                raise ConnectionError(str(error)) from None

    def _last_words(self) -> str:
        """The last line that tells of an error; vLLM prints much behind it."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line]
        errors = [line for line in lines if "rror" in line or line.startswith("ssjf: ")]
        return (errors or lines or ["it said nothing"])[-1].strip()

    def terminate(self) -> int:
        """Ask it to end, as a service manager does; its exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(STOPPING_SECONDS)

    def close(self) -> None:
        """End it with all its processes, and remove its log."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self.terminate()
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
            self._guard.wait()
            self._guard = None
        shutil.rmtree(self._folder, ignore_errors=True)


class Connection:
    """HTTP/1.1 to a server of this machine, kept open."""

    def __init__(self) -> None:
        self._port = 0
        self._writer: asyncio.StreamWriter | None = None

    async def open(self, port: int) -> None:
        """Connect, unless there is a connection to that port."""
        if self._writer is None or self._port != port or self._writer.is_closing():
            self.close()
            self._reader, self._writer = await asyncio.open_connection(HOST, port)
            self._port = port

    def close(self) -> None:
        """Give up what is under way."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def send(self, body: bytes, headers: dict[str, str]) -> None:
        """Post a body for a completion."""
        assert self._writer is not None
        told = {"host": HOST, "content-type": "application/json", "content-length": str(len(body))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in (told | headers).items())
        head = f"POST /v1/completions HTTP/1.1\r\n{lines}\r\n"
        self._writer.write(head.encode() + body)

    async def answered(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """Post a body; status and body of the answer. EOFError where it does not come whole."""
        self.send(body, headers)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head.split(b" ", 2)[1])
        if b"transfer-encoding: chunked" not in head:
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            return status, await self._reader.readexactly(length)
        found = b""
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            found += (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readexactly(2)
        return status, found


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        return free.getsockname()[1]
