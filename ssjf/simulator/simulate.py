"""The iteration-level simulator: exact, in integer time, one policy at a time."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ssjf.errors import InputError
from ssjf.request import Completions, FloatArray, IntArray, Requests
from ssjf.scheduler import Policy, Queue
from ssjf.simulator.profile import PICOSECONDS, Profile
from ssjf.simulator.server import UNLIMITED, Memory, Server


@dataclass(frozen=True)
class SimulatedCompletions(Completions):
    """``Completions``, and how long each request's KV was not on the device, shape (n,).

    ``counters``: steps, preemptions, busy_seconds; swaps_out, swaps_in; swapped_out_tokens,
    swapped_in_tokens; link_out_busy_seconds, link_in_busy_seconds; offloads_ahead, uploads_ahead
    (those of the copies that EWT asked for); recomputed_tokens, whose KV was dropped;
    dropped_for_full_host, requests; stall_seconds, in which nothing could run though there were
    requests; most_kv_blocks and most_host_blocks in use at a time.
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
    predicted_tokens: shape (n,), what the policy knows of the lengths; an ``OraclePolicy`` is
        given the true ones instead. on_preemption ``ewt`` needs them whatever the policy.
    predictor_seconds: charged to every request before it may be scheduled.
    memory: what becomes of a preempted request; by default its KV is computed again.
    jump_quiet_steps: jump over steps in which nothing changes (same result); by default where
        it pays.
    tune: what a compiled score's parameters are from now on; asked whenever ``tune_every`` more
        requests have finished, with the rows of all that have, and the time.

    Raises
    ------
    InputError: for a request that can never fit the KV memory, the host or the token budget,
        unsorted arrivals, missing predictions, or times that overflow the clock.
    """
    # Only when a simulation runs: numba takes its time to import.
    from ssjf.simulator.core import loop, setting, state
    from ssjf.simulator.core.compiled import announced

    server, memory = server or Server(), memory or Memory()
    predicted = setting.predictions(policy, requests, predicted_tokens)
    ready = setting.ready_picoseconds(requests, predictor_seconds)
    setting.check(requests, profile, server, memory)
    none = np.zeros(len(requests), np.int64)
    queue = Queue(requests.arrived_at, requests.prompt_tokens, predicted, none)
    up_to = {None: setting.JUMP_UP_TO_RUNNING, True: UNLIMITED, False: 0}[jump_quiet_steps]
    machine = setting.machine(requests, queue, policy, profile, server, memory, ready, up_to)
    run = loop.run_with_ewt if memory.on_preemption == "ewt" else loop.run
    ask = _scorer(machine, policy, queue)
    if tune is not None:
        machine[4][state.FINISHED_AT] = 0
    with announced():
        while True:
            if tune is not None:
                _tune(machine, tune, tune_every)
            while (ended := run(*machine)) == state.NEEDS_SCORES:
                ask()
            if ended != state.FINISHED or machine[0][0]["done"] == len(requests):
                break
    check_end(ended, memory)
    return _completions(machine, requests)


def check_end(ended: int, memory: Memory) -> None:
    """Raise unless the machine FINISHED."""
    from ssjf.simulator.core import setting, state

    if ended == state.OVERFLOW:
        raise InputError(
            f"the run passes {setting.TIME_LIMIT // PICOSECONDS} s, the end of the time counter; "
            f"use fewer requests, a lower load{' or a faster link' if memory.swaps else ''}"
        )
    if ended != state.FINISHED:
        raise AssertionError("the simulated server waits for nothing")


def _tune(machine, ask: Callable[[IntArray, float], tuple[float, ...]], every: int) -> None:
    """Ask for the parameters of the score, and run until so many more are done."""
    from ssjf.simulator.core import setting, state

    m, finished_at = machine[0][0], machine[4][state.FINISHED_AT]
    finished = np.flatnonzero(finished_at)
    setting.set_parameters(m, ask(finished, m["now"] / PICOSECONDS))
    m["until"] = min(len(finished) + every, len(finished_at))


def _scorer(machine, policy: Policy, queue: Queue) -> Callable[[], None]:
    """Asks a policy of any kind for its scores of what waits (and of what runs, if wanted)."""
    from ssjf.simulator.core.state import WAITING

    m, requests, _, tables, *_ = machine
    names = ("waiting", "asked_running", "first_running", "step", "now")
    count, wants_running, first, step, now = (m[name] for name in names)
    waiting, after, since = tables["item"][WAITING], requests["after"], requests["since"]
    generated, score = requests["generated"], requests["score"]

    def ask() -> None:
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
        view = Queue(
            queue.arrived_at[rows], queue.prompt_tokens[rows], queue.predicted_tokens[rows], made
        )
        score[rows] = policy.scores(view, now[0] / PICOSECONDS)

    return ask


def counted(m) -> dict[str, float]:
    """The counters of a machine; see ``SimulatedCompletions``."""
    from ssjf.simulator.core.state import COUNTS, TIMES

    counters: dict[str, float] = {"steps": int(m["step"]) - 1}
    counters |= {name: int(m[name]) for name in COUNTS}
    counters |= {f"{name}_seconds": int(m[name]) / PICOSECONDS for name in TIMES}
    counters["most_kv_blocks"] = int(m["blocks"] - m["least_free"])
    counters["most_host_blocks"] = int(m["host_blocks"] - m["least_host_free"])
    return counters


def _completions(machine, requests: Requests) -> SimulatedCompletions:
    m, records, extra, times = machine[0][0], machine[1], machine[2], machine[4]
    n = len(requests)
    scheduled_at, first_token_at, finished_at = times[1:] / PICOSECONDS
    return SimulatedCompletions(
        requests,
        scheduled_at,
        first_token_at,
        finished_at,
        np.zeros(n, np.int64) if m["preemptions"] == 0 else records["preempted"].astype(np.int64),
        counted(m),
        extra["swapped"] / PICOSECONDS if m["swaps_in"] else np.zeros(n),
    )
