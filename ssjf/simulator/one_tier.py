"""The machine with KV memory on the device alone, which no policy preempts but for memory."""

import numpy as np

from ssjf.errors import InputError
from ssjf.request import Completions, FloatArray, Requests
from ssjf.scheduler import Policy, Queue
from ssjf.simulator.machines import TIME_LIMIT, check_fits, drive, predictions, ready_picoseconds
from ssjf.simulator.profile import PICOSECONDS, Profile
from ssjf.simulator.server import Server

SKIP_UP_TO_RUNNING = 32  # jumping over quiet steps pays below this batch


def simulate_one_tier(
    requests: Requests,
    policy: Policy,
    profile: Profile,
    server: Server,
    predicted_tokens: FloatArray | None,
    predictor_seconds: float,
    skip_quiet_steps: bool | None = None,
) -> Completions:
    """``simulator.simulate`` for a policy that does not preempt."""
    from ssjf.simulator.kernel import loop, state

    predicted = predictions(policy, requests, predicted_tokens)
    ready = ready_picoseconds(requests, predictor_seconds)
    check_fits(requests, server, profile)
    constants = _constants(state, server, profile, skip_quiet_steps)
    total = requests.output_tokens + profile.start_up_steps
    _check_clock(state, constants, total, requests, server)
    queue = Queue(requests.arrived_at, requests.prompt_tokens, predicted, np.zeros_like(total))
    constants[state.KIND] = getattr(state, _kind(policy))
    machine = state.new_machine(constants, ready, requests.prompt_tokens, total)
    _set_order(state, machine, policy, queue)
    drive(loop, state, machine, lambda: _score(state, machine, policy, queue),
          "use fewer requests or a lower load")  # fmt: skip
    return _completions(state, machine, requests)


def _constants(state, server: Server, profile: Profile, skip: bool | None) -> np.ndarray:
    c = np.zeros(state.CONSTANTS, np.int64)
    c[state.SLOTS] = server.running_slots
    c[state.BLOCK] = server.block_tokens
    c[state.BLOCKS] = server.blocks
    c[state.WATERMARK] = int(server.watermark * server.blocks)
    c[state.BUDGET] = server.token_budget
    c[state.CHUNKED] = server.chunked_prefill
    c[state.LEAD] = profile.start_up_steps
    c[state.DYNAMIC] = server.batching == "dynamic"
    c[state.TIMEOUT] = round(server.fill_timeout_seconds * PICOSECONDS)
    times = slice(state.STEP_TIME, state.PREFILL_TIME + 1)
    c[times] = profile.picoseconds()
    c[state.LIMIT] = TIME_LIMIT
    c[state.SKIP_BELOW] = {None: SKIP_UP_TO_RUNNING, True: UNBOUNDED, False: 0}[skip]
    return c


UNBOUNDED = 2**40


def _check_clock(state, c, total, requests: Requests, server: Server) -> None:
    """Could one step or one jump over steps pass the end of the clock? (Float: no wrapping.)"""
    kv = float((requests.prompt_tokens + total).max()) * server.running_slots
    step = float(c[state.STEP_TIME]) + float(c[state.SEQUENCE_TIME]) * server.running_slots
    step += float(c[state.CONTEXT_TIME]) * kv
    step += float(c[state.PREFILL_TIME]) * server.token_budget
    if step * float(total.max() + 2) > TIME_LIMIT / 4:
        raise InputError(
            "one request could run for more than the time counter holds "
            f"({TIME_LIMIT // 4 // PICOSECONDS} s); the profile's coefficients are too large"
        )


def _kind(policy: Policy) -> str:
    """How the kernel keeps this policy's queue."""
    if policy.promote_after is not None:
        return "BOUNDED"
    return {"constant": "STATIC", "linear": "LINEAR", "any": "ANY"}[policy.in_time]


def _set_order(state, machine, policy: Policy, queue: Queue) -> None:
    """Write the order into the machine: ranks, bounds, or base and slope."""
    _, _, q, f, _ = machine
    if policy.in_time == "any":
        return
    base = policy.scores(queue, 0.0)
    if policy.in_time == "linear":
        f[state.BASE] = base
        f[state.SLOPE] = policy.scores(queue, 1.0) - base
        return
    q[state.KEY] = _sortable(base)
    if policy.promote_after is not None:
        bound = np.asarray(policy.promote_after(queue), np.float64)
        if bound.shape != (len(queue),) or not (bound >= 0).all():
            raise InputError(f"policy {policy.name}: promote_after must give times of at least 0")
        patience = np.minimum(bound * PICOSECONDS, TIME_LIMIT / 2).astype(np.int64)
        q[state.PROMOTE_AT] = q[state.READY] + patience


def _sortable(scores: FloatArray) -> np.ndarray:
    """Integers in the order of the scores: the bits of a float64, negative ones mirrored."""
    bits = (scores + 0.0).view(np.int64)  # + 0.0 turns -0.0 into 0.0
    return np.where(bits < 0, bits ^ np.iinfo(np.int64).max, bits)


def _score(state, machine, policy: Policy, queue: Queue) -> None:
    """Ask a policy of any kind for its scores of what waits (and what runs, if short of KV)."""
    _, s, q, f, _ = machine
    asked = q[state.HEAP_ITEM, : s[state.WAITING]]
    done = q[state.GENERATED, asked]
    if s[state.BLOCKED]:
        running = _running(state, s, q)
        decoded = q[state.GENERATED, running] + s[state.STEP] - q[state.SINCE, running]
        prefilling = running == s[state.PARTIAL]
        asked = np.concatenate([asked, running])
        done = np.concatenate([done, np.where(prefilling, q[state.GENERATED, running], decoded)])
    view = Queue(
        queue.arrived_at[asked], queue.prompt_tokens[asked], queue.predicted_tokens[asked], done
    )
    f[state.SCORE, asked] = policy.scores(view, s[state.NOW] / PICOSECONDS)


def _running(state, s, q) -> np.ndarray:
    found = []
    i = s[state.FIRST_RUNNING]
    while i != state.NONE:
        found.append(i)
        i = q[state.AFTER, i]
    return np.array(found, np.int64)


def _completions(state, machine, requests: Requests) -> Completions:
    _, s, q, _, _ = machine
    scheduled, first, finished = q[state.SCHEDULED_AT : state.FINISHED_AT + 1] / PICOSECONDS
    counters = {
        "steps": int(s[state.STEP]),
        "preemptions": int(s[state.PREEMPTIONS]),
        "busy_seconds": int(s[state.BUSY]) / PICOSECONDS,
    }
    return Completions(requests, scheduled, first, finished, q[state.PREEMPTED].copy(), counters)
