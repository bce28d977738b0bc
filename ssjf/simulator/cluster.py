"""A cluster: several machines, each the exact one, behind a router that sees their state."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ssjf.errors import InputError
from ssjf.request import FloatArray, Requests
from ssjf.scheduler import Policy, Queue
from ssjf.scheduler.routers import Router
from ssjf.simulator.fleet import ClusterCompletions, Fleet, Replica
from ssjf.simulator.server import UNLIMITED, Memory


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
    """Send ``requests`` to ``replicas`` as they come; each serves its own in the order of
    ``policy``.

    The router sees each replica at the moment of the arrival; ties between requests are by
    arrival. What a replica has when it goes down comes to the router again at that moment, as new;
    while all are down, requests wait for the first that returns.

    Parameters
    ----------
    predicted_tokens: shape (n,), what policy and router know of the lengths.
    prefixes: shape (n,), what the requests of one prefix have in common, for ``affinity``.
    seed: of the router's draws. The others: as of ``simulate``.

    Raises
    ------
    InputError: as ``simulate``; for no replica, for a policy of no static, linear or compiled
        score, for ``ewt``, and for replicas of different ``start_up_steps``.
    """
    from ssjf.simulator.core import setting
    from ssjf.simulator.core.compiled import announced

    memory = memory or Memory()
    _check(policy, replicas, router, predicted_tokens, memory, prefixes)
    predicted = setting.predictions(policy, requests, predicted_tokens)
    ready = setting.ready_picoseconds(requests, predictor_seconds)
    for each in replicas:
        setting.check(requests, each.profile, each.server, memory)
    none = np.zeros(len(requests), np.int64)
    queue = Queue(requests.arrived_at, requests.prompt_tokens, predicted, none)
    up_to = {None: setting.JUMP_UP_TO_RUNNING, True: UNLIMITED, False: 0}[jump_quiet_steps]
    built: list[tuple[Replica, Any]] = []
    for each in replicas:
        if not any(_alike(each, other) for other, _ in built):
            args = (requests, queue, policy, each.profile, each.server, memory, ready, up_to)
            built.append((each, setting.machine(*args)))
    machines = [next(made for other, made in built if _alike(each, other)) for each in replicas]
    lengths = predicted_tokens if router.uses_prediction else None
    with announced():
        fleet = Fleet(replicas, machines, router, memory, len(requests), lengths, prefixes, seed)
        fleet.serve()
    return fleet.completions(requests)


def _alike(one: Replica, other: Replica) -> bool:
    return (one.profile, one.server) == (other.profile, other.server)


def _check(policy, replicas, router, predicted_tokens, memory, prefixes) -> None:
    from ssjf.scheduler import Moving
    from ssjf.scheduler.alise import Remaining

    if not replicas:
        raise InputError("a cluster needs at least one replica")
    if len({each.profile.start_up_steps for each in replicas}) > 1:
        raise InputError("the profiles of a cluster's replicas must have the same start_up_steps")
    asked = policy.in_time == "any" and not isinstance(policy.score, Moving | Remaining)
    if asked:
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
    """``simulate`` with so many like machines behind a router in the place of one."""

    def serve(
        requests, policy, profile, server, predicted_tokens=None, predictor_seconds=0.0, memory=None
    ) -> ClusterCompletions:
        return simulate_cluster(requests, policy, [Replica(profile, server)] * replicas, router,
                                predicted_tokens, predictor_seconds, memory, seed=seed)  # fmt: skip

    return serve
