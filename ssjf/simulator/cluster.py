"""A cluster: several simulated machines behind a router that sees their state."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from ssjf.errors import InputError
from ssjf.request import FloatArray, Requests
from ssjf.scheduler import Moving, Policy
from ssjf.scheduler.alise import Remaining
from ssjf.scheduler.routers import Router
from ssjf.simulator.fleet import ClusterCompletions, Fleet, Replica
from ssjf.simulator.profile import Profile
from ssjf.simulator.server import Memory, Server


def simulate_cluster(
    requests: Requests,
    policy: Policy,
    replicas: Sequence[Replica],
    router: Router,
    predicted_tokens: FloatArray | None = None,
    predictor_seconds: float = 0.0,
    memory: Memory | None = None,
    prefixes: np.ndarray | None = None,
    seed: int = 0,
    jump_quiet_steps: bool | None = None,
) -> ClusterCompletions:
    """Route ``requests`` to ``replicas`` as they arrive; each serves in the order of ``policy``.

    The router sees each replica at the moment of the arrival; ties between requests are by
    arrival. When a replica goes down, its requests are routed again at that moment, as new; while
    all are down, requests wait for the first to return.

    Parameters
    ----------
    predicted_tokens: shape (n,), what policy and router know of the lengths.
    prefixes: shape (n,), an identifier of each request's prefix, for ``affinity``.
    seed: of the router's draws. The others: as of ``simulate``.

    Raises
    ------
    InputError: as ``simulate``; for no replica, for a policy whose score is not static, linear or
        compiled, for ``ewt``, and for replicas of different ``start_up_steps``.
    """
    # Imported here because importing numba is slow.
    from ssjf.simulator.core import setting
    from ssjf.simulator.core.compiled import announced

    kv_memory = memory or Memory()
    _check(policy, replicas, router, predicted_tokens, kv_memory, prefixes)

    @cache
    def machine(profile: Profile, server: Server) -> Any:
        return setting.machine(requests, policy, profile, server, kv_memory, predicted_tokens,
                               predictor_seconds, jump_quiet_steps)  # fmt: skip

    machines = [machine(replica.profile, replica.server) for replica in replicas]
    lengths = predicted_tokens if router.uses_prediction else None
    with announced():
        fleet = Fleet(replicas, machines, router, kv_memory, len(requests), lengths, prefixes, seed)
        fleet.serve()
    return fleet.completions(requests)


def _check(policy, replicas, router, predicted_tokens, memory, prefixes) -> None:
    if not replicas:
        raise InputError("a cluster needs at least one replica")
    if len({replica.profile.start_up_steps for replica in replicas}) > 1:
        raise InputError("the profiles of a cluster's replicas must have the same start_up_steps")
    if policy.in_time == "any" and not isinstance(policy.score, Moving | Remaining):
        raise InputError(
            f"policy {policy.name} cannot be served in a cluster: its score must be 'constant' or "
            "'linear' in time, Moving, AtArrival or predicted remaining time"
        )
    if memory.on_preemption == "ewt":
        raise InputError(
            "on_preemption is 'ewt'; in a cluster it must be 'recompute', 'swap' or 'defer'"
        )
    if router.uses_prediction and predicted_tokens is None:
        raise InputError(f"router {router.name} needs predicted lengths and none were given")
    if router.by_prefix and prefixes is None:
        raise InputError(f"router {router.name} needs a column of prefixes and none was given")


def simulator_of(replicas: int, router: Router, seed: int = 0) -> Callable[..., ClusterCompletions]:
    """Return a function like ``simulate`` that serves on ``replicas`` equal machines."""

    def serve(
        requests, policy, profile, server, predicted_tokens=None, predictor_seconds=0.0, memory=None
    ) -> ClusterCompletions:
        return simulate_cluster(requests, policy, [Replica(profile, server)] * replicas, router,
                                predicted_tokens, predictor_seconds, memory, seed=seed)  # fmt: skip

    return serve
