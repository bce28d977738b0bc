"""A thin vLLM scheduler for orders that no static ``priority`` can express.

    vllm serve … --scheduling-policy priority --no-async-scheduling \\
        --scheduler-cls ssjf.harness.scheduler.PolicyScheduler \\
        --additional-config '{"ssjf_policy": "hrrn"}'

Before every step it writes the policy's scores of waiting and running requests as their priorities;
memory and batching stay vLLM's own. A policy that ``preempts`` also gives the slot of a running
request to a waiting one of strictly lower score, by vLLM's own preemption: the request is computed
again, or swapped where a KV connector (``HostSwap``) keeps its blocks. The ``priority`` of an
incoming request is taken as its predicted length, in units of ``ssjf_tokens`` tokens (by default
1; see ``ssjf serve --preempt``). vLLM calls scheduler classes "not public": use a static key where
one will do. Importing this module imports vLLM.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from vllm.v1.core.sched.scheduler import Scheduler

from ssjf.scheduler import Policy, Queue, policy

_LAST = (2,)  # the priority of a request until the next step's scores


class PolicyScheduler(Scheduler):
    """Orders by a policy's scores at every step; for ``--no-async-scheduling``."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._predicted: dict[str, float] = {}
        self._keys: dict[str, float] = {}  # made at arrival
        self._promoted: set[str] = set()
        config = getattr(self.vllm_config, "additional_config", None) or {}
        self._tokens = float(config.get("ssjf_tokens", 1.0))
        self.ask(config.get("ssjf_policy", "ssjf"))

    def ask(self, name: str, clock: Callable[[], float] = time.time) -> None:
        """Order by this policy; ``clock`` is that of the requests' ``arrival_time``."""
        self._policy: Policy = policy(name)
        self._clock = clock

    def add_request(self, request: Any) -> None:
        if self._policy.made_at_arrival:
            self._keys[request.request_id] = self._key_at_arrival(request)
        self._predicted[request.request_id] = request.priority * self._tokens
        request.priority = _LAST
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
        """Write the current scores as priorities, and build the heap of waiting requests anew."""
        waiting = [self.waiting.pop_request() for _ in range(len(self.waiting))]
        everyone = [*waiting, *self.running]
        if everyone:
            for request, key in zip(everyone, self._keys_of(everyone, waiting), strict=True):
                request.priority = key
        for request in waiting:
            self.waiting.add_request(request)

    def _displace(self) -> None:
        """Preempt the last of the running requests for the first waiting ones without a slot."""
        free = self.max_num_running_reqs - len(self.running)
        waiting = sorted(self.waiting, key=lambda request: request.priority)[free:]
        victims = sorted(self.running, key=lambda request: request.priority, reverse=True)
        for best, victim in zip(waiting, victims, strict=False):
            if best.priority[:2] >= victim.priority[:2]:  # equal scores never preempt
                return
            self.running.remove(victim)
            self._preempt_request(victim, time.monotonic())

    def _key_at_arrival(self, request: Any) -> float:
        """Return the policy's score of a request that arrives, given those in flight."""
        tokens = np.array([request.priority * self._tokens])
        prompt = np.array([request.num_prompt_tokens], np.int64)
        in_flight = np.array([len(self._predicted)]), np.array([sum(self._predicted.values())])
        arrived = np.array([request.arrival_time])
        queue = Queue(arrived, prompt, tokens, np.zeros(1, int), *in_flight)
        return float(self._policy.scores(queue, request.arrival_time)[0])

    def _keys_of(self, everyone: list[Any], waiting: list[Any]) -> list[Any]:
        if self._policy.made_at_arrival:
            return [self._key(request, self._keys[request.request_id]) for request in everyone]
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
        """Return a unique key: promoted requests first, by arrival; then the others by score."""
        ties = (request.arrival_time, request.request_id)
        promoted = request.request_id in self._promoted
        return (0, *ties) if promoted else (1, score, *ties)
