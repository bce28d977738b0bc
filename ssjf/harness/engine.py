"""Runs on vLLM from the outside: a worker process that is asked job by job."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ssjf.errors import InputError
from ssjf.harness.deployment import Deployment
from ssjf.harness.interpreter import ABSENT, end_with_the_parent, python, required, variables
from ssjf.harness.models import make
from ssjf.request import Completions, FloatArray, IntArray, Requests
from ssjf.scheduler import Policy, Queue, policy
from ssjf.simulator.core.setting import predictions
from ssjf.simulator.server import Server

_MORE = ("tokens", "swap_", "ended_by_model")


@dataclass(frozen=True)
class Prompts:
    """Real prompts with a seed for each, and how the model answers them (see ``run.natural``)."""

    texts: Sequence[str]
    decoding: Mapping[str, Any]
    seeds: Sequence[int]


class Engine(AbstractContextManager["Engine"]):
    """An engine of a deployment, started on first use.

    ``hardware`` says what it runs on, once started. InputError if vLLM is absent, does not
    start, or dies in a run.
    """

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.hardware: dict[str, Any] = {}
        self._folder = Path(tempfile.mkdtemp(prefix="ssjf-vllm-"))
        self._process: subprocess.Popen[str] | None = None
        self._jobs = 0

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process and remove its files."""
        if self._process is not None:
            self._process.stdin.close()  # type: ignore[union-attr]
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start the engine, if it has not been."""
        if self._process is not None:
            return
        interpreter = required(python())
        self._folder.mkdir(exist_ok=True)
        model = self.deployment.folder() or self._folder / "model"
        if not model.exists() and self.deployment.shape:
            make(self.deployment.shape, model)
        try:
            self._process = subprocess.Popen(
                [interpreter, "-m", "ssjf.harness.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=(self._folder / "vllm.log").open("w"),
                text=True,
                env=variables(),
                preexec_fn=end_with_the_parent,
            )
        except OSError as error:
            raise InputError(f"{interpreter} cannot be run ({error.strerror}); {ABSENT}") from None
        self.hardware = self._ask(self.deployment.engine_arguments(model))

    def serve(
        self,
        requests: Requests,
        policy_name: str,
        server: Server,
        predicted_tokens: FloatArray | None = None,
        predictor_seconds: float = 0.0,
        clock: str | None = None,
        seed: int = 0,
        prompts: Prompts | None = None,
    ) -> tuple[Completions, dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Serve ``requests`` as the simulator does.

        The arguments are those of ``simulate``, the policy by name. ``clock``: ``wall`` or ``cpu``
        for seconds (by default the deployment's), or ``steps``: then times, arrivals too, are step
        counts. With ``prompts`` the model ends its answers: the requests' output_tokens are then
        what the policy knows, and the completions hold what was generated.

        Returns
        -------
        The completions; the record of steps, an array per column of ``run.PER_STEP``; the
        generated tokens and what was swapped, by name.
        """
        self._check(requests, server)
        self.start()
        chosen = policy(policy_name)
        predicted = predictions(chosen, requests, predicted_tokens)
        # vLLM's own fcfs or priority, or a policy of PolicyScheduler
        static = "fcfs" if chosen.name == "fcfs" else "priority"
        is_stock = chosen.is_static and not chosen.made_at_arrival
        job = self._job(server) | {
            "policy": static if is_stock else policy_name,
            "clock": clock or self.deployment.clock,
            "seed": seed,
        }
        if prompts is not None:
            job |= {"texts": list(prompts.texts), "decoding": dict(prompts.decoding)}
        np.savez(
            job["requests"],
            ready_at=requests.arrived_at + predictor_seconds,
            arrived_at=requests.arrived_at,
            prompt_tokens=requests.prompt_tokens,
            output_tokens=requests.output_tokens,
            priority=_ranks(chosen, requests, predicted) if is_stock else predicted,
            seeds=np.zeros(len(requests)) if prompts is None else np.asarray(prompts.seeds),
        )
        self._ask(job)
        with np.load(job["result"]) as arrays:
            result = dict(arrays)
        steps = {name[5:]: each for name, each in result.items() if name.startswith("step_")}
        more = {name: each for name, each in result.items() if name.startswith(_MORE)}
        if prompts is not None:
            requests = replace(requests, prompt_tokens=result["prompt_tokens"],
                               output_tokens=result["generated"])  # fmt: skip
        return _completions(requests, result), steps, more

    def _check(self, requests: Requests, server: Server) -> None:
        """InputError for what the simulator can do and this deployment cannot."""
        has, name = self.deployment, self.deployment.name
        for what, value, most in (
            ("slots", server.slots, has.slots),
            ("token_budget", server.token_budget, has.token_budget),
            ("kv_tokens", server.kv_tokens or 0, has.kv_tokens),
        ):
            if value > most:
                raise InputError(f"{what} is {value}; deployment {name} has {most}")
        if server.block_tokens != has.block_tokens:
            raise InputError(
                f"block_tokens is {server.block_tokens}; deployment {name} has {has.block_tokens}"
            )
        longest = int((requests.prompt_tokens + requests.output_tokens).max())
        if longest > has.context_tokens:
            raise InputError(f"a request has {longest} tokens; deployment {name} takes at most "
                             f"{has.context_tokens}")  # fmt: skip

    def _job(self, server: Server) -> dict[str, Any]:
        """Return the next job's files, and the server in vLLM's words."""
        self._jobs += 1
        whole = self.deployment.kv_tokens // self.deployment.block_tokens
        return {
            "requests": str(self._folder / f"{self._jobs}-requests.npz"),
            "result": str(self._folder / f"{self._jobs}-result.npz"),
            "kv_blocks": whole if server.kv_tokens is None else server.blocks,
            "scheduler_config": {
                "max_num_seqs": server.slots,
                "max_num_batched_tokens": server.token_budget,
                "enable_chunked_prefill": server.chunked_prefill,
                "watermark": server.watermark,
            },
        }

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # it died: what follows says why
        # shown from the first tokens on: most jobs have no progress
        with tqdm(desc="answers", unit="token", disable=None, leave=False, delay=1) as bar:
            while "tokens" in (answer := json.loads(process.stdout.readline() or "{}")):
                bar.update(answer["tokens"])
        if "error" in answer or not answer:
            why = answer.get("error") or self._last_words(process.wait())
            self._process = None
            raise InputError(f"the vLLM engine of deployment {self.deployment.name} died: {why}; "
                             "finished runs are kept")  # fmt: skip
        if "refused" in answer:
            raise InputError(answer["refused"])
        return answer

    def _last_words(self, code: int) -> str:
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        log = (self._folder / "vllm.log").read_text(errors="replace").strip()
        return f"{how}, last words: {log.splitlines()[-1]}" if log else how


def _ranks(policy: Policy, requests: Requests, predicted: FloatArray) -> IntArray:
    """Return a static key as vLLM's ``priority``: whole numbers, ties by arrival; (n,)."""
    none = np.zeros(len(requests), np.int64)
    scores = policy.scores(Queue(requests.arrived_at, requests.prompt_tokens, predicted, none), 0.0)
    return np.argsort(np.argsort(scores, kind="stable"))


def _completions(requests: Requests, result: dict[str, np.ndarray]) -> Completions:
    busy = result["step_ended_at"] - result["step_started_at"]
    counters = {"steps": int((result["step_sequences"] > 0).sum()),
                "preemptions": int(result["preemptions"].sum()),
                "busy_seconds": float(busy.sum())}  # fmt: skip
    return Completions(
        requests, result["scheduled_at"], result["first_token_at"], result["finished_at"],
        result["preemptions"], counters,
    )  # fmt: skip
