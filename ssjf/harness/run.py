"""One run in a live engine: open-loop arrivals, a clock of its own, and a record of every step.

The engine is ``LLMEngine`` in this process, so that a step is a call and everything about it can
be read. Requests join between steps, as in the simulator.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

PER_STEP = (
    "started_at", "ended_at", "prefill_tokens", "sequences", "context_tokens", "waiting",
    "running", "kv_blocks", "preemptions", "cpu_seconds", "wall_seconds",
)  # fmt: skip
"""Columns of the record of steps: start and end by the run's clock; tokens, requests and blocks
held after the step's scheduling (``waiting`` is what it left in the queue); processor time of this
thread and wall time that the step took."""

ENDED, SEQUENCES = PER_STEP.index("ended_at"), PER_STEP.index("sequences")
CPU_SECONDS, WALL_SECONDS = PER_STEP.index("cpu_seconds"), PER_STEP.index("wall_seconds")
Arrays = Mapping[str, np.ndarray]


class WallSeconds:
    """Real time since the start of a run."""

    read = staticmethod(time.perf_counter)

    def __init__(self) -> None:
        self.start = self.read()

    def now(self) -> float:
        return self.read() - self.start

    def wait_until(self, then: float) -> None:
        time.sleep(max(0.0, then - self.now()))

    def step(self) -> None:
        """Time passes by itself."""


class CpuSeconds(WallSeconds):
    """Processor time of this thread, in which the engine runs, without idle time.

    Real time would measure other processes of a shared machine as well.
    """

    read = staticmethod(time.thread_time)

    def wait_until(self, then: float) -> None:
        self.start -= max(0.0, then - self.now())


class Steps(WallSeconds):
    """A clock by which every step takes 1."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def wait_until(self, then: float) -> None:
        self.time = max(self.time, then)

    def step(self) -> None:
        self.time += 1


CLOCKS = {"wall": WallSeconds, "cpu": CpuSeconds, "steps": Steps}


def forced(output_tokens: np.ndarray) -> list[dict[str, Any]]:
    """Return vLLM's ``SamplingParams`` of requests with answers of these lengths, (n,)."""
    return [{"max_tokens": int(n), "ignore_eos": True, "temperature": 0.0} for n in output_tokens]


def natural(
    decoding: Mapping[str, Any], seeds: np.ndarray, end: list[int]
) -> list[dict[str, Any]]:  # fmt: skip
    """Return vLLM's ``SamplingParams`` of requests whose answers the model ends, or a cap.

    decoding: ``most_tokens`` (the cap), ``temperature`` and ``repetition_penalty``. seeds: of the
    requests, (n,). end: the tokens that end an answer, which count as one of its tokens.
    """
    options = {**decoding, "stop_token_ids": end}
    options["max_tokens"] = options.pop("most_tokens")
    if options["temperature"] > 0:
        return [options | {"seed": int(seed)} for seed in seeds]
    return [options] * len(seeds)


class Run:
    """The loop of one run and its record. sampling: ``SamplingParams`` by request. progress: called
    with the number of new tokens."""

    def __init__(
        self,
        engine: Any,
        scheduler: Any,
        clock: WallSeconds,
        requests: Arrays,
        prompts: list[list[int]],
        sampling: Sequence[Mapping[str, Any]],
        progress: Callable[[int], None],
    ) -> None:
        self.engine, self.scheduler, self.clock, self.requests = engine, scheduler, clock, requests
        n = len(requests["ready_at"])
        self.scheduled, self.first, self.finished = np.full((3, n), np.nan)
        self.preemptions = np.zeros(n, np.int64)
        self.unfinished: dict[int, Any] = {}  # vLLM's own request objects
        self.names: dict[str, int] = {}  # request numbers by vLLM's name
        self.caught_up: dict[int, int] = {}  # preemptions when prefill was last complete
        self.steps: list[list[float]] = []
        self.prompts, self.sampling, self.progress = prompts, sampling, progress
        self.ended_by_model = np.zeros(n, bool)
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

        sampling = SamplingParams(
            **self.sampling[i], detokenize=False, output_kind=RequestOutputKind.DELTA
        )
        self.engine.add_request(
            f"{i:09d}",  # vLLM breaks ties by arrival, then by name
            {"prompt_token_ids": self.prompts[i]},
            sampling,
            arrival_time=float(self.requests["arrived_at"][i]),
            priority=self.requests["priority"][i].item(),
        )
        added = next(reversed(self.scheduler.requests))  # some versions lengthen the name
        self.names[added] = i
        self.unfinished[i] = self.scheduler.requests[added]

    def _step(self) -> None:
        cpu, wall = time.thread_time(), time.perf_counter()
        outputs = self.engine.step()
        self.steps[-1][CPU_SECONDS] = time.thread_time() - cpu
        self.steps[-1][WALL_SECONDS] = time.perf_counter() - wall
        if self.steps[-1][SEQUENCES]:  # a step that schedules nothing takes no time
            self.clock.step()
        now = self.steps[-1][ENDED] = self.clock.now()
        for output in outputs:
            i = int(output.request_id)
            new = output.outputs[0].token_ids
            self.tokens[i].extend(new)
            self.progress(len(new))
            if np.isnan(self.first[i]):
                self.first[i] = now
            if output.finished:
                self.finished[i] = now
                self.ended_by_model[i] = output.outputs[0].finish_reason == "stop"
                self.preemptions[i] = self.unfinished.pop(i).num_preemptions

    def _observed(self, *arguments: Any, **options: Any) -> Any:
        """Call vLLM's ``schedule``, unaltered, and record what it scheduled."""
        now = self.clock.now()
        output = self._schedule(*arguments, **options)
        sequences = prefill = context = 0
        for name, tokens in output.num_scheduled_tokens.items():
            i, request = self.names[name], self.scheduler.requests[name]
            if np.isnan(self.scheduled[i]):
                self.scheduled[i] = now
            if self.caught_up.get(i) != request.num_preemptions:
                prefill += tokens
            if request.num_computed_tokens >= request.num_tokens:
                self.caught_up[i] = request.num_preemptions  # decodes from the next step on
            sequences += 1
            context += request.num_computed_tokens
        preempted = len(output.preempted_req_ids or ())
        queues = len(self.scheduler.waiting), len(self.scheduler.running)
        self.steps.append(
            [self.began, np.nan, prefill, sequences, context, *queues,
             blocks_held(self.scheduler), preempted, np.nan, np.nan]
        )  # fmt: skip
        return output

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the run's record, by name."""
        steps = np.array(self.steps, np.float64).reshape(-1, len(PER_STEP)).T
        return {
            "scheduled_at": self.scheduled,
            "first_token_at": self.first,
            "finished_at": self.finished,
            "preemptions": self.preemptions,
            "generated": np.array([*map(len, self.tokens)]),
            "ended_by_model": self.ended_by_model,
            "prompt_tokens": np.array([*map(len, self.prompts)]),
            "tokens": np.array([*chain.from_iterable(self.tokens)], np.int32),
            **{f"step_{name}": column for name, column in zip(PER_STEP, steps, strict=True)},
        }


def blocks_held(scheduler: Any) -> int:
    """Return the number of KV blocks in use."""
    pool = scheduler.kv_cache_manager.block_pool
    return pool.num_gpu_blocks - 1 - pool.get_num_free_blocks()
