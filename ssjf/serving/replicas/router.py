"""Ray Serve's request router by the names and functions of ``scheduler.routers``.

It knows what it sent, not what a replica does: a request is in flight from its choice to its end.
Each handle has a router of its own, so there is one ingress.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from ssjf.scheduler.routers import router
from ssjf.serving.priority import ESTIMATE


@dataclass
class Load:
    """Requests in flight at a replica, and their predicted tokens together."""

    requests: int = 0
    tokens: float = 0.0

    def add(self, requests: int, tokens: float) -> None:
        """Add some, or subtract negative ones."""
        self.requests += requests
        self.tokens = self.tokens + tokens if self.requests else 0.0


class LengthRouter(RequestRouter):
    """Sends each request to the replica of the lowest score, and counts it there at once."""

    def initialize_state(self, **options: Any) -> None:
        """Take the router's ``name`` and the ``slots`` of a replica."""
        self._score, self._slots = router(options["name"]).score, options["slots"]
        self._loads: dict[Any, Load] = defaultdict(Load)
        self._charged: dict[str, tuple[Any, float]] = {}
        self._random, self._last = random.Random(0), 0

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:  # fmt: skip
        """Choose one replica: Ray would order several of a rank by a count of its own."""
        replicas = sorted(candidate_replicas, key=lambda replica: replica.replica_id.unique_id)
        if pending_request is None:
            return [[replica] for replica in replicas]
        tokens = estimate(pending_request.args)
        n = len(replicas)
        seen = self.seen([self._loads[replica.replica_id] for replica in replicas], tokens)
        scores = [(self._score(each), (i - self._last - 1) % n, i) for i, each in enumerate(seen)]
        self._last = min(scores)[2]
        self._charge(replicas[self._last].replica_id, pending_request, tokens)
        return [[replicas[self._last]]]

    def seen(self, loads: Sequence[Load], tokens: float) -> list[SimpleNamespace]:
        """Return what a score may read of each replica (``scheduler.routers.SEEN``), as far as
        known; ``work_tokens`` includes what running requests have generated already."""
        draws = [self._random.random() for _ in loads]
        return [
            SimpleNamespace(
                replica=i, replicas=len(loads), slots=self._slots, step_seconds=1.0,
                predicted_tokens=tokens, draw=draw, lot=min(sum(d < draw for d in draws), 2),
                running=min(load.requests, self._slots),
                waiting=max(load.requests - self._slots, 0), work_tokens=load.tokens,
            )
            for i, (load, draw) in enumerate(zip(loads, draws, strict=True))
        ]  # fmt: skip

    def _charge(self, replica_id: ReplicaID, pending: PendingRequest, tokens: float) -> None:
        request_id = pending.metadata.internal_request_id
        if request_id in self._charged:  # a second choice: the first one did not take it
            self.on_request_completed(self._charged[request_id][0], request_id)
        self._charged[request_id] = (replica_id, tokens)
        self._loads[replica_id].add(1, tokens)

        def given_up(sent: Any) -> None:  # Ray reports the end of sent requests only
            if sent.cancelled():
                self.on_request_completed(replica_id, request_id)

        pending.future.add_done_callback(given_up)

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Note that a request has ended at a replica, answered or not."""
        where, tokens = self._charged.get(internal_request_id, (None, 0.0))
        if where == replica_id:
            del self._charged[internal_request_id]
            self._loads[replica_id].add(-1, -tokens)


def estimate(arguments: Sequence[Any]) -> float:
    """Return the predicted tokens of a request to a replica (``Replica.ask``); 0 if unknown."""
    headers = arguments[2] if len(arguments) > 2 else ()
    tokens = next((value for key, value in headers if key.lower() == ESTIMATE), b"")
    return float(tokens) if tokens.isdigit() else 0.0
