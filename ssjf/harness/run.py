"""One run in a live engine: open-loop arrivals, an own clock, steps counted.

A request ends where it is told to (forced lengths), or where the model ends it (``Answers``).

The engine is ``LLMEngine`` in this process, so that a step is a call and everything about it can
be read. Requests join between steps, as the simulator has it.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

PER_STEP = (
    "started_at", "ended_at", "prefill_tokens", "sequences", "context_tokens", "waiting",
    "running", "kv_blocks", "preemptions", "cpu_seconds", "wall_seconds",
)  # fmt: skip
"""Columns of the record of steps: begin and end by the run's clock, tokens, requests and blocks
held after the step's scheduling (``waiting`` is what it left in the queue), and what the step took
of the processor's time in this thread, and of the wall's."""

ENDED, SEQUENCES = PER_STEP.index("ended_at"), PER_STEP.index("sequences")
CPU_SECONDS, WALL_SECONDS = PER_STEP.index("cpu_seconds"), PER_STEP.index("wall_seconds")
Arrays = Mapping[str, np.ndarray]


class WallSeconds:
    """Real time since the start of a run."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def now(self) -> float:
        return time.perf_counter() - self.start

    def wait_until(self, then: float) -> None:
        time.sleep(max(0.0, then - self.now()))

    def step(self) -> None:
        """Time passes by itself."""


class CpuSeconds(WallSeconds):
    """The processor's time of this thread, in which the engine runs; idle time is jumped over.

    Where other processes share the machine, real time measures them as well.
    """

    def __init__(self) -> None:
        self.start = time.thread_time()

    def now(self) -> float:
        return time.thread_time() - self.start

    def wait_until(self, then: float) -> None:
        self.start -= max(0.0, then - self.now())


class Steps(WallSeconds):
    """Every step takes 1."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def wait_until(self, then: float) -> None:
        self.time = max(self.time, then)

    def step(self) -> None:
        self.time += 1


CLOCKS = {"wall": WallSeconds, "cpu": CpuSeconds, "steps": Steps}


class Forced:
    """Answers of given lengths, whatever the model says; ``output_tokens``: (n,)."""

    def __init__(self, output_tokens: np.ndarray) -> None:
        self.output_tokens = output_tokens

    def of(self, i: int) -> dict[str, Any]:
        """vLLM's ``SamplingParams`` of request i."""
        return {"max_tokens": int(self.output_tokens[i]), "ignore_eos": True, "temperature": 0.0}


class Natural:
    """Answers that the model ends, or the cap.

    decoding: ``most_tokens``, and of ``SamplingParams`` ``temperature`` and
    ``repetition_penalty``. seeds: of each request, (n,). end: the model's token that ends an
    answer, which counts as one of its tokens.
    """

    def __init__(self, decoding: Mapping[str, Any], seeds: np.ndarray, end: list[int]) -> None:
        self.decoding, self.seeds, self.end = dict(decoding), seeds, end

    def of(self, i: int) -> dict[str, Any]:
        """vLLM's ``SamplingParams`` of request i."""
        given = self.decoding | {"max_tokens": self.decoding["most_tokens"]}
        del given["most_tokens"]
        if given["temperature"] > 0:
            given["seed"] = int(self.seeds[i])
        return given | {"stop_token_ids": self.end}


class Run:
    """The loop of one run, and what it records; ``tell`` is told of new tokens."""

    def __init__(
        self,
        engine: Any,
        scheduler: Any,
        clock: WallSeconds,
        requests: Arrays,
        prompts: list[list[int]],
        lengths: Forced | Natural,
        tell: Callable[[int], None] = lambda tokens: None,
    ) -> None:
        self.engine, self.scheduler, self.clock, self.requests = engine, scheduler, clock, requests
        n = len(requests["ready_at"])
        self.scheduled, self.first, self.finished = np.full((3, n), np.nan)
        self.preemptions = np.zeros(n, np.int64)
        self.unfinished: dict[int, Any] = {}  # vLLM's own records of the requests
        self.names: dict[str, int] = {}  # what vLLM calls them
        self.caught_up: dict[int, int] = {}  # preemptions when its prefill was last complete
        self.steps: list[list[float]] = []
        self.prompts, self.lengths, self.tell = prompts, lengths, tell
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

        length = SamplingParams(
            **self.lengths.of(i), detokenize=False, output_kind=RequestOutputKind.DELTA
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
            self.tell(len(new))
            if np.isnan(self.first[i]):
                self.first[i] = now
            if output.finished:
                self.finished[i] = now
                self.ended_by_model[i] = output.outputs[0].finish_reason == "stop"
                self.preemptions[i] = self.unfinished.pop(i).num_preemptions

    def _observed(self, *arguments: Any, **options: Any) -> Any:
        """vLLM's ``schedule``, looked at and not altered."""
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
        """What the run gives back, by name."""
        steps = np.array(self.steps, np.float64).reshape(-1, len(PER_STEP)).T
        return {
            "scheduled_at": self.scheduled,
            "first_token_at": self.first,
            "finished_at": self.finished,
            "preemptions": self.preemptions,
            "generated": np.array([len(one) for one in self.tokens]),
            "ended_by_model": self.ended_by_model,
            "prompt_tokens": np.array([len(one) for one in self.prompts]),
            "tokens": np.array([token for one in self.tokens for token in one], np.int32),
            **{f"step_{name}": column for name, column in zip(PER_STEP, steps, strict=True)},
        }


def blocks_held(scheduler: Any) -> int:
    """KV blocks in use."""
    pool = scheduler.kv_cache_manager.block_pool
    return pool.num_gpu_blocks - 1 - pool.get_num_free_blocks()
