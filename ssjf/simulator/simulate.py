"""The iteration-level simulator of one machine: exact, in integer time."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ssjf.errors import InputError
from ssjf.request import Completions, FloatArray, IntArray, Requests
from ssjf.scheduler import Policy, Queue
from ssjf.simulator.core import state
from ssjf.simulator.profile import PICOSECONDS, Profile
from ssjf.simulator.server import Memory, Server


@dataclass(frozen=True)
class SimulatedCompletions(Completions):
    """``Completions``, and how long each request's KV was not on the device, shape (n,).

    ``counters``: steps, preemptions, busy_seconds; swaps_out, swaps_in; swapped_out_tokens,
    swapped_in_tokens; link_out_busy_seconds, link_in_busy_seconds; offloads_ahead, uploads_ahead
    (copies that EWT started); recomputed_tokens (whose KV was dropped); dropped_for_full_host
    (requests); stall_seconds, in which nothing could run though there were requests;
    most_kv_blocks and most_host_blocks in use at a time.
    """

    swapped_seconds: FloatArray = field(default_factory=lambda: np.zeros(0))


def simulate(
    requests: Requests,
    policy: Policy,
    profile: Profile,
    server: Server | None = None,
    predicted_tokens: FloatArray | None = None,
    predictor_seconds: float = 0.0,
    memory: Memory | None = None,
    jump_quiet_steps: bool | None = None,
    tune: Callable[[IntArray, float], tuple[float, ...]] | None = None,
    tune_every: int = 10_000,
) -> SimulatedCompletions:
    """Serve ``requests`` in the order of ``policy``.

    Parameters
    ----------
    predicted_tokens: shape (n,), what the policy knows of the lengths; an ``OraclePolicy`` gets
        the true ones instead. on_preemption ``ewt`` needs them whatever the policy.
    predictor_seconds: delay of every request before it may be scheduled.
    memory: how the KV of preempted requests is treated; by default it is computed again.
    jump_quiet_steps: jump over steps in which nothing changes (same result); by default where
        it pays.
    tune: returns new parameters of a compiled score; called with the rows of all finished requests
        and the time, at the start and whenever ``tune_every`` more have finished.

    Raises
    ------
    InputError: for a request that can never fit the KV memory, the host or the token budget,
        unsorted arrivals, missing predictions, or times that overflow the clock.
    """
    # Imported here because importing numba is slow.
    from ssjf.simulator.core import loop, setting
    from ssjf.simulator.core.compiled import announced

    memory = memory or Memory()
    machine = setting.machine(requests, policy, profile, server or Server(), memory,
                              predicted_tokens, predictor_seconds, jump_quiet_steps)  # fmt: skip
    run = loop.run_with_ewt if memory.on_preemption == "ewt" else loop.run
    predicted = setting.predictions(policy, requests, predicted_tokens)
    update_scores = _scorer(machine, policy, requests, predicted)
    if tune is not None:
        machine[4][state.FINISHED_AT] = 0
    with announced():
        while True:
            if tune is not None:
                _tune(machine, tune, tune_every)
            while (ended := run(*machine)) == state.NEEDS_SCORES:
                update_scores()
            if ended != state.FINISHED or machine[0][0]["done"] == len(requests):
                break
    check_end(ended, memory)
    return _completions(machine, requests)


def check_end(ended: int, memory: Memory) -> None:
    """Raise unless the machine FINISHED."""
    if ended == state.OVERFLOW:
        raise InputError(
            f"the run passes {state.TIME_LIMIT // PICOSECONDS} s, the end of the time counter; "
            f"use fewer requests, a lower load{' or a faster link' if memory.swaps else ''}"
        )
    if ended != state.FINISHED:
        raise AssertionError("the simulated server waits for nothing")


def _tune(machine, tune: Callable[[IntArray, float], tuple[float, ...]], every: int) -> None:
    """Update the score's parameters, and let the next run end after ``every`` more requests."""
    from ssjf.simulator.core import setting

    m, finished_at = machine[0][0], machine[4][state.FINISHED_AT]
    finished = np.flatnonzero(finished_at)
    setting.set_parameters(m, tune(finished, m["now"] / PICOSECONDS))
    m["until"] = min(len(finished) + every, len(finished_at))


def _scorer(
    machine, policy: Policy, requests: Requests, predicted: FloatArray
) -> Callable[[], None]:
    """Return a function that scores the waiting (and, if wanted, the running) requests now."""
    m, records, _, tables, *_ = machine
    names = ("waiting", "asked_running", "first_running", "step", "now")
    count, wants_running, first, step, now = (m[name] for name in names)
    waiting, after, since = tables["item"][state.WAITING], records["after"], records["since"]
    generated, score = records["generated"], records["score"]

    def update() -> None:
        rows = waiting[: count[0]]
        made = generated[rows].astype(np.int64)
        if wants_running[0]:
            listed, i = [], first[0]
            while i >= 0:
                listed.append(i)
                i = after[i]
            running = np.array(listed, np.int64)
            rows = np.concatenate([rows, running])
            decoded = np.where(since[running] > 0, step[0] - since[running], 0)
            made = np.concatenate([made, generated[running] + decoded])
        queue = Queue(
            requests.arrived_at[rows], requests.prompt_tokens[rows], predicted[rows], made
        )
        score[rows] = policy.scores(queue, now[0] / PICOSECONDS)

    return update


def counted(m) -> dict[str, float]:
    """The counters of a machine; see ``SimulatedCompletions``."""
    return {
        "steps": int(m["step"]) - 1,
        **{name: int(m[name]) for name in state.COUNTS},
        **{f"{name}_seconds": int(m[name]) / PICOSECONDS for name in state.TIMES},
        "most_kv_blocks": int(m["blocks"] - m["least_free"]),
        "most_host_blocks": int(m["host_blocks"] - m["least_host_free"]),
    }


def _completions(machine, requests: Requests) -> SimulatedCompletions:
    (m,), records, extra, _, times, _ = machine
    preempted = records["preempted"].astype(np.int64)
    swapped = extra["swapped"] / PICOSECONDS if m["swaps_in"] else np.zeros(len(requests))
    scheduled_at, first_token_at, finished_at = times[1:] / PICOSECONDS
    return SimulatedCompletions(
        requests, scheduled_at, first_token_at, finished_at, preempted, counted(m), swapped
    )
