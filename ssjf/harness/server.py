"""Start a vLLM server for a measurement, query it over HTTP, and end it with this process."""

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
from ssjf.harness.interpreter import end_with_the_parent, python, required, variables
from ssjf.harness.worker import SETTINGS

HOST = "127.0.0.1"
STARTING_SECONDS, STOPPING_SECONDS = 900, 30
# Arguments of an engine in a worker but not of a server, which has a tokenizer and metrics.
NOT_FOR_SERVERS = {"model", "skip_tokenizer_init", "scheduling_policy", "async_scheduling",
                   "disable_log_stats"}  # fmt: skip
# Ends a server's processes once its own input ends, as it does when our process has ended: vLLM
# killed while it starts, or by SIGKILL, leaves its engine behind.
GUARD = "cat >/dev/null; kill -s TERM -- -{0} && sleep 10 && kill -s KILL -- -{0}"
# vLLM closes a connection that was idle for 5 s; its own bench keeps them for 60 s, and fails if it
# sends at that moment.
KEEP_ALIVE = {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "90"}
DIRECT = {"no_proxy": "*"}  # for clients, which send to this machine


def options_of(deployment: Deployment, max_num_seqs: int, model: Path) -> list[str]:
    """Return a deployment as options of ``vllm serve``, with another ``max_num_seqs``."""
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
    """Return the environment of a server or its client: this process's without options of
    ``ssjf serve``; variables that are not set are those of ``SETTINGS`` and ``KEEP_ALIVE``."""
    settings = SETTINGS | KEEP_ALIVE
    if not Path(model).is_dir():
        settings.pop("HF_HUB_OFFLINE")
    kept = {name: text for name, text in variables().items() if not name.startswith(SERVE_PREFIX)}
    return settings | kept


class LiveServer:
    """``vllm serve MODEL``, or ``ssjf serve MODEL`` if ``middleware`` is given.

    ``middleware``: the variables of its options (``ServeOptions.environment``). ``variables``: the
    whole environment, instead of ``environment``. InputError, in one sentence, if vLLM is absent,
    does not start, or has died.
    """

    def __init__(
        self,
        model: str,
        vllm_options: Sequence[str] = (),
        middleware: Mapping[str, str] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        interpreter = required(python())
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
        """Start the server and wait until it answers."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start the server, which ends with the calling thread."""
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
        """The process id."""
        assert self._process is not None
        return self._process.pid

    def ended(self, seconds: float | None = None) -> bool:
        """Wait at most ``seconds`` (None: for ever) for the process to end; has it ended?"""
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.returncode is not None

    def wait(self, seconds: float = STARTING_SECONDS) -> None:
        """Wait until the server answers; end it if it does not."""
        end = time.monotonic() + seconds
        try:
            while not self._answers():
                if self.ended(0):
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
        with suppress(OSError):
            return self._request("/health")[0] == 200
        return False

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the JSON answer to a JSON body."""
        return json.loads(self.get(path, json.dumps(body)))

    def get(self, path: str, body: str | None = None) -> str:
        """Return the text at a path, or the answer to a body posted there."""
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
        """Return the last line of the log with an error, after which vLLM prints much more."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line]
        errors = [line for line in lines if "rror" in line or line.startswith("ssjf: ")]
        return (errors or lines or ["it said nothing"])[-1].strip()

    def terminate(self) -> int:
        """Ask the server to end, as a service manager does; return its exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(STOPPING_SECONDS)

    def close(self) -> None:
        """End the server with all its processes, and remove its log."""
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


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        return free.getsockname()[1]
