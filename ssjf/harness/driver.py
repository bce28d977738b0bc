"""One run in a live engine: open-loop arrivals, forced lengths, an own clock, steps counted.

Runs where vLLM is installed. The engine is ``LLMEngine`` in this process, so that a step is a
call and everything about it can be read. Requests join between steps, as the simulator has it.
"""

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ssjf.harness.clocks import CLOCKS, Clock

PER_STEP = (
    "started_at", "ended_at", "prefill_tokens", "sequences", "context_tokens", "waiting",
    "running", "kv_blocks", "preemptions",
)  # fmt: skip
"""Columns of the record of steps: seconds, tokens, requests and blocks held after the step's
scheduling; ``waiting`` is what it left in the queue."""

ENDED, SEQUENCES = PER_STEP.index("ended_at"), PER_STEP.index("sequences")
Arrays = Mapping[str, np.ndarray]


class Driver:
    """A live in-process engine that serves one run after the other."""

    def __init__(self, engine_arguments: Mapping[str, Any]) -> None:
        from vllm import EngineArgs, LLMEngine

        _without_amx()
        engine_arguments = dict(engine_arguments)
        if "kv_transfer_config" in engine_arguments:
            from vllm.config import KVTransferConfig

            swapping = KVTransferConfig(**engine_arguments["kv_transfer_config"])
            engine_arguments["kv_transfer_config"] = swapping
        self.engine = LLMEngine.from_engine_args(EngineArgs(**engine_arguments))
        self.core = self.engine.engine_core.engine_core  # in this process
        self.first_scheduler = self.core.scheduler
        self.vocabulary = self.engine.vllm_config.model_config.get_vocab_size()

    def serve(self, job: Mapping[str, Any], requests: Arrays) -> dict[str, np.ndarray]:
        """Serve all requests; time stamps (n,) and the record of steps (m,), in the clock's unit.

        ``job``: ``policy`` (fcfs, priority, or a name of ``ssjf.scheduler`` that the scheduler
        class asks at every step), ``scheduler_config`` (vLLM's, by name), ``kv_blocks``, ``clock``
        (see ``CLOCKS``), ``seed``. ``requests``: ``ready_at``, ``arrived_at``, ``prompt_tokens``,
        ``output_tokens``, ``priority``. Also gives the generated tokens, one request after the
        other, and what was swapped.
        """
        clock = CLOCKS[job["clock"]]()
        self.core.scheduler = self._scheduler(job, clock)
        prompts = self._prompts(requests["prompt_tokens"], job["seed"])
        run = _Run(self.engine, self.core.scheduler, clock, requests, prompts)
        before = _swapping_totals()
        run.go()
        swapped = {name: total - before[name] for name, total in _swapping_totals().items()}
        swapped["blocks"] = _blocks_held(self.core.scheduler)
        return run.arrays() | {f"swap_{name}": np.array(value) for name, value in swapped.items()}

    def _prompts(self, lengths: np.ndarray, seed: int) -> list[list[int]]:
        rng = np.random.default_rng(seed)
        return [rng.integers(2, self.vocabulary, n).tolist() for n in lengths]

    def _scheduler(self, job: Mapping[str, Any], clock: Clock) -> Any:
        """vLLM's own scheduler in the run's configuration, made as ``EngineCore`` makes it."""
        first = self.first_scheduler
        given = {
            "vllm_config": self._config(job),
            # vLLM keeps one block for itself
            "kv_cache_config": replace(first.kv_cache_config, num_blocks=job["kv_blocks"] + 1),
            "structured_output_manager": self.core.structured_output_manager,
            "block_size": first.block_size,
            "hash_block_size": getattr(first, "hash_block_size", None),
        }
        made_by = self._class(job["policy"])
        known = inspect.signature(type(first).__init__).parameters
        scheduler = made_by(**{name: value for name, value in given.items() if name in known})
        if job["policy"] not in ("fcfs", "priority"):
            scheduler.ask(job["policy"], clock.now)
        return scheduler

    def _config(self, job: Mapping[str, Any]) -> Any:
        """The engine's ``VllmConfig`` with the run's scheduling."""
        config = copy.copy(self.first_scheduler.vllm_config)
        config.scheduler_config = copy.copy(config.scheduler_config)
        settings = job["scheduler_config"] | {
            "max_num_scheduled_tokens": job["scheduler_config"]["max_num_batched_tokens"],
            "policy": "fcfs" if job["policy"] == "fcfs" else "priority",
        }
        for name, value in settings.items():
            if hasattr(config.scheduler_config, name):
                setattr(config.scheduler_config, name, value)
            elif name == "watermark" and value:
                raise ValueError("this vLLM has no watermark")
        return config

    def _class(self, policy: str) -> Callable[..., Any]:
        if policy in ("fcfs", "priority"):
            return type(self.first_scheduler)
        from ssjf.harness.scheduler import PolicyScheduler

        return PolicyScheduler


def _without_amx() -> None:
    """vLLM 0.32's attention dies on AMX processors (illegal instruction) where a whole batch is
    one token with no context, as the first chunk of a prompt can be; AVX-512 does not."""
    import torch

    if hasattr(torch.cpu, "_is_amx_tile_supported"):
        torch.cpu._is_amx_tile_supported = lambda: False


class _Run:
    """The loop of one run, and what it records."""

    def __init__(
        self, engine: Any, scheduler: Any, clock: Clock, requests: Arrays, prompts: list[list[int]]
    ) -> None:
        self.engine, self.scheduler, self.clock, self.requests = engine, scheduler, clock, requests
        n = len(requests["ready_at"])
        self.scheduled, self.first, self.finished = np.full((3, n), np.nan)
        self.preemptions = np.zeros(n, np.int64)
        self.unfinished: dict[int, Any] = {}  # vLLM's own records of the requests
        self.names: dict[str, int] = {}  # what vLLM calls them
        self.caught_up: dict[int, int] = {}  # preemptions when its prefill was last complete
        self.steps: list[list[float]] = []
        self.prompts = prompts
        self.tokens: list[list[int]] = [[] for _ in range(n)]
        self.next, self.began = 0, 0.0
        self._schedule = scheduler.schedule
        scheduler.schedule = self._observed

    def go(self) -> None:
        ready = self.requests["ready_at"]
        while self.next < len(ready) or self.unfinished:
            if not self.unfinished:
                self.clock.wait_until(ready[self.next])
            self.began = self.clock.now()
            self._join()
            if self.unfinished:
                self._step()

    def _join(self) -> None:
        now, ready = self.clock.now(), self.requests["ready_at"]
        while self.next < len(ready) and ready[self.next] <= now:
            self._add(self.next)
            self.next += 1

    def _add(self, i: int) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        length = SamplingParams(
            max_tokens=int(self.requests["output_tokens"][i]),
            ignore_eos=True,
            temperature=0.0,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        self.engine.add_request(
            f"{i:09d}",  # vLLM breaks ties by arrival, then by name
            {"prompt_token_ids": self.prompts[i]},
            length,
            arrival_time=float(self.requests["arrived_at"][i]),
            priority=self.requests["priority"][i].item(),
        )
        added = next(reversed(self.scheduler.requests))  # some versions lengthen the name
        self.names[added] = i
        self.unfinished[i] = self.scheduler.requests[added]

    def _step(self) -> None:
        outputs = self.engine.step()
        if self.steps[-1][SEQUENCES]:  # a step that schedules nothing takes no time
            self.clock.step()
        now = self.steps[-1][ENDED] = self.clock.now()
        for output in outputs:
            i = int(output.request_id)
            self.tokens[i].extend(output.outputs[0].token_ids)
            if np.isnan(self.first[i]):
                self.first[i] = now
            if output.finished:
                self.finished[i] = now
                self.preemptions[i] = self.unfinished.pop(i).num_preemptions

    def _observed(self, *arguments: Any, **options: Any) -> Any:
        """vLLM's ``schedule``, looked at and not altered."""
        now = self.clock.now()
        found = self._schedule(*arguments, **options)
        sequences = prefill = context = 0
        for name, tokens in found.num_scheduled_tokens.items():
            i, request = self.names[name], self.scheduler.requests[name]
            if np.isnan(self.scheduled[i]):
                self.scheduled[i] = now
            if self.caught_up.get(i) != request.num_preemptions:
                prefill += tokens
            if request.num_computed_tokens >= request.num_tokens:
                self.caught_up[i] = request.num_preemptions  # decodes from the next step on
            sequences += 1
            context += request.num_computed_tokens
        preempted = len(found.preempted_req_ids or ())
        queues = len(self.scheduler.waiting), len(self.scheduler.running)
        self.steps.append(
            [self.began, np.nan, prefill, sequences, context, *queues,
             _blocks_held(self.scheduler), preempted]
        )  # fmt: skip
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """What the run gives back, by name."""
        steps = np.array(self.steps, np.float64).reshape(-1, len(PER_STEP)).T
        return {
            "scheduled_at": self.scheduled,
            "first_token_at": self.first,
            "finished_at": self.finished,
            "preemptions": self.preemptions,
            "tokens": np.array([token for one in self.tokens for token in one], np.int32),
            **{f"step_{name}": column for name, column in zip(PER_STEP, steps, strict=True)},
        }


def _blocks_held(scheduler: Any) -> int:
    pool = scheduler.kv_cache_manager.block_pool
    return pool.num_gpu_blocks - 1 - pool.get_num_free_blocks()


def _swapping_totals() -> dict[str, float]:
    """What the connector of this process has copied so far; nothing where there is none."""
    from vllm.distributed.kv_transfer import get_kv_transfer_group, has_kv_transfer_group

    if not has_kv_transfer_group():
        return {}
    worker = get_kv_transfer_group()
    return {
        "out": worker.copied["out"],
        "back": worker.copied["back"],
        "out_seconds": worker.seconds["out"],
        "back_seconds": worker.seconds["back"],
        "left": len(worker._host),
    }
