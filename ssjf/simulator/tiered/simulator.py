"""``simulate_tiered``: the simulator with a host tier, preemption by priority, reservations."""

from dataclasses import dataclass, field

import numpy as np

from ssjf.request import Completions, FloatArray, Requests
from ssjf.scheduler import Policy, Queue
from ssjf.simulator.machines import drive, predictions, ready_picoseconds
from ssjf.simulator.memory import Memory
from ssjf.simulator.one_tier import simulate_one_tier
from ssjf.simulator.profile import PICOSECONDS, Profile
from ssjf.simulator.server import Server
from ssjf.simulator.tiered import setting

_TOTALS = {
    "steps": "step",
    "preemptions": "preemptions",
    "swaps_out": "swaps_out",
    "swaps_in": "swaps_in",
    "swapped_out_tokens": "tokens_out",
    "swapped_in_tokens": "tokens_in",
    "offloads_ahead": "ahead_out",
    "uploads_ahead": "ahead_in",
    "recomputed_tokens": "recomputed",
    "dropped_for_full_host": "host_full",
}
_TIMES = {
    "busy_seconds": "busy",
    "stall_seconds": "stalled",
    "link_out_busy_seconds": "out_busy",
    "link_in_busy_seconds": "in_busy",
}


@dataclass(frozen=True)
class TieredCompletions(Completions):
    """``Completions``, and how long each request's KV was not on the device, shape (n,).

    ``counters``, besides steps, preemptions and busy_seconds: swaps_out, swaps_in;
    swapped_out_tokens, swapped_in_tokens; link_out_busy_seconds, link_in_busy_seconds;
    offloads_ahead, uploads_ahead (those of the copies that EWT asked for); recomputed_tokens,
    whose KV was dropped; dropped_for_full_host, requests; stall_seconds, in which nothing could
    run though there were requests; most_kv_blocks and most_host_blocks in use at a time.
    (``simulate`` counts the first three: what it does not know is absent.)
    """

    swapped_seconds: FloatArray = field(default_factory=lambda: np.zeros(0))


def simulate_tiered(
    requests: Requests,
    policy: Policy,
    profile: Profile,
    server: Server | None = None,
    memory: Memory | None = None,
    predicted_tokens: FloatArray | None = None,
    predictor_seconds: float = 0.0,
    step_by_step: bool = False,
) -> TieredCompletions:
    """Serve ``requests`` in the order of ``policy`` with a ``memory`` of two tiers.

    Parameters
    ----------
    predicted_tokens, predictor_seconds: as for ``simulate``; on_preemption ``ewt`` needs
        predictions whatever the policy.
    step_by_step: use this machine even where ``simulate`` gives the same result faster: with a
        policy that does not preempt, recomputation, and no reservation.

    Raises ``InputError`` where ``simulate`` does, and for a host smaller than one request, a
    request longer than ``maximum_tokens``, dynamic batching, or a copy that never ends.
    """
    server, memory = server or Server(), memory or Memory()
    if not step_by_step and is_plain(policy, memory):
        done = simulate_one_tier(
            requests, policy, profile, server, predicted_tokens, predictor_seconds
        )
        return TieredCompletions(**vars(done), swapped_seconds=np.zeros(len(requests)))
    from ssjf.simulator.tiered import loop, state

    predicted = predictions(policy, requests, predicted_tokens)
    ready = ready_picoseconds(requests, predictor_seconds)
    machine, queue = setting.machine(
        state, requests, policy, profile, server, memory, predicted, ready
    )
    drive(loop, state, machine, lambda: _score(state, machine, policy, queue),
          "use fewer requests, a lower load or a faster link")  # fmt: skip
    return _completions(machine, requests)


def is_plain(policy: Policy, memory: Memory) -> bool:
    """Does ``simulate`` serve this exactly?"""
    recomputes = memory.on_preemption == "recompute" and memory.reserve == "none"
    return recomputes and not policy.preempts


def _score(state, machine, policy: Policy, queue: Queue) -> None:
    """Ask a policy of any kind for its scores of what waits and what runs."""
    _, s, q, w, _ = machine
    waiting = w[state.WAITING, : s["waiting"][0]]
    asked = np.concatenate([waiting, w[state.RUNNING, : s["running"][0]]])
    view = Queue(
        queue.arrived_at[asked],
        queue.prompt_tokens[asked],
        queue.predicted_tokens[asked],
        q["made"][asked],
    )
    q["score"][asked] = policy.scores(view, s["now"][0] / PICOSECONDS)


def _completions(machine, requests: Requests) -> TieredCompletions:
    c, s, q, _, _ = machine
    counters: dict[str, float] = {name: int(s[key][0]) for name, key in _TOTALS.items()}
    counters |= {name: int(s[key][0]) / PICOSECONDS for name, key in _TIMES.items()}
    counters["most_kv_blocks"] = int(c["blocks"][0] - s["least_free"][0])
    counters["most_host_blocks"] = int(c["host_blocks"][0] - s["least_host_free"][0])
    return TieredCompletions(
        requests,
        q["scheduled_at"] / PICOSECONDS,
        q["first_at"] / PICOSECONDS,
        q["finished_at"] / PICOSECONDS,
        q["preempted"].copy(),
        counters,
        q["swapped"] / PICOSECONDS,
    )
