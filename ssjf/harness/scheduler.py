"""A thin vLLM scheduler for orders that no static ``priority`` can express.

    vllm serve … --scheduling-policy priority --no-async-scheduling \\
        --scheduler-cls ssjf.harness.scheduler.PolicyScheduler \\
        --additional-config '{"ssjf_policy": "hrrn"}'

Before every step it asks the policy for the scores of what waits and runs and writes them as
priorities; memory and batching stay vLLM's own. A policy that ``preempts`` also gives the slot of
a running request to a waiting one of strictly lower score, by vLLM's own preemption: the request
is computed again, or swapped where a KV connector (``HostSwap``) keeps its blocks. The
``priority`` that a request came with is taken as its predicted length in tokens, or in so many
tokens as ``ssjf_tokens`` says (``ssjf serve --preempt``). vLLM calls scheduler classes "not
public": use a static key where one will do. Importing this module imports vLLM.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from vllm.v1.core.sched.scheduler import Scheduler

from ssjf.scheduler import Policy, Queue, policy

_LAST = (2,)


class PolicyScheduler(Scheduler):
    """Asks a policy at every step; for ``--no-async-scheduling``."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._predicted: dict[str, float] = {}
        self._keys: dict[str, float] = {}  # made at arrival
        self._promoted: set[str] = set()
        given = getattr(self.vllm_config, "additional_config", None) or {}
        self._tokens = float(given.get("ssjf_tokens", 1.0))
        self.ask(given.get("ssjf_policy", "ssjf"))

    def ask(self, name: str, clock: Callable[[], float] = time.time) -> None:
        """Order by this policy; ``clock`` is that of the requests' ``arrival_time``."""
        self._policy: Policy = policy(name)
        self._clock = clock

    def add_request(self, request: Any) -> None:
        if self._policy.made_at_arrival:
            self._keys[request.request_id] = self._key_at_arrival(request)
        self._predicted[request.request_id] = request.priority * self._tokens
        request.priority = _LAST  # until the next step asks
        super().add_request(request)

    def schedule(self, *arguments: Any, **options: Any) -> Any:
        self._order()
        if self._policy.preempts:
            self._displace()
        return super().schedule(*arguments, **options)

    def _free_request(self, request: Any, *arguments: Any, **options: Any) -> Any:
        self._predicted.pop(request.request_id, None)
        self._keys.pop(request.request_id, None)
        self._promoted.discard(request.request_id)
        return super()._free_request(request, *arguments, **options)

    def _order(self) -> None:
        """Write the scores of this moment as priorities; the heap of the waiting is made anew."""
        waiting = [self.waiting.pop_request() for _ in range(len(self.waiting))]
        everyone = [*waiting, *self.running]
        if everyone:
            scores = self._scores(everyone, waiting)
            for request, score in zip(everyone, scores, strict=True):
                request.priority = score
        for request in waiting:
            self.waiting.add_request(request)

    def _displace(self) -> None:
        """Preempt the victims of lowest rank for the best waiting requests without a slot."""
        free = self.max_num_running_reqs - len(self.running)
        waiting = sorted(self.waiting, key=lambda request: request.priority)[free:]
        victims = sorted(self.running, key=lambda request: request.priority, reverse=True)
        for best, victim in zip(waiting, victims, strict=False):
            if best.priority[:2] >= victim.priority[:2]:  # equal scores never preempt
                return
            self.running.remove(victim)
            self._preempt_request(victim, time.monotonic())

    def _key_at_arrival(self, request: Any) -> float:
        """What the policy says of a request while those in ``_predicted`` are in flight."""
        tokens = np.array([request.priority * self._tokens])
        prompt = np.array([request.num_prompt_tokens], np.int64)
        there = np.array([len(self._predicted)]), np.array([sum(self._predicted.values())])
        queue = Queue(np.array([request.arrival_time]), prompt, tokens, np.zeros(1, int), *there)
        return float(self._policy.scores(queue, request.arrival_time)[0])

    def _scores(self, everyone: list[Any], waiting: list[Any]) -> list[Any]:
        if self._policy.made_at_arrival:
            return [self._key(each, self._keys[each.request_id]) for each in everyone]
        queue = Queue(
            np.array([request.arrival_time for request in everyone], np.float64),
            np.array([request.num_prompt_tokens for request in everyone], np.int64),
            np.array([self._predicted[request.request_id] for request in everyone], np.float64),
            np.array([request.num_output_tokens for request in everyone], np.int64),
        )
        now = self._clock()
        scores = self._policy.scores(queue, now).tolist()
        if self._policy.victims is not None:
            running = self._policy.victims(queue, now).tolist()
            scores = scores[: len(waiting)] + running[len(waiting) :]
        bound = self._policy.promote_after
        if bound is not None:
            late = (now - queue.arrived_at >= bound(queue))[: len(waiting)]
            self._promoted |= {waiting[i].request_id for i in np.flatnonzero(late)}
        return [self._key(request, score) for request, score in zip(everyone, scores, strict=True)]

    def _key(self, request: Any, score: float) -> tuple[Any, ...]:
        """The promoted first, by arrival; then by score. No two keys are equal."""
        ties = (request.arrival_time, request.request_id)
        promoted = request.request_id in self._promoted
        return (0, *ties) if promoted else (1, score, *ties)
