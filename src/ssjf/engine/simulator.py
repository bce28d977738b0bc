"""The iteration-level simulator: exact, in integer time, one policy at a time."""

from collections.abc import Callable

import numpy as np

from ssjf.engine.profile import PICOSECONDS, Profile
from ssjf.engine.server import Server
from ssjf.errors import InputError
from ssjf.policy import OraclePolicy, Policy, Queue
from ssjf.request import Completions, FloatArray, Requests

TIME_LIMIT = 2**62  # picoseconds: 53 days
SKIP_UP_TO_RUNNING = 32  # jumping over quiet steps pays below this batch


def simulate(
    requests: Requests,
    policy: Policy,
    profile: Profile,
    server: Server | None = None,
    predicted_tokens: FloatArray | None = None,
    predictor_seconds: float = 0.0,
    skip_quiet_steps: bool | None = None,
) -> Completions:
    """Serve ``requests`` in the order of ``policy``.

    A policy that preempts is served by ``tiered.simulate_tiered``, with recomputation.

    Parameters
    ----------
    predicted_tokens: shape (n,), what the policy knows of the lengths; an ``OraclePolicy`` is
        given the true ones instead.
    predictor_seconds: charged to every request before it may be scheduled.
    skip_quiet_steps: jump over steps in which nothing changes (same result); by default where
        it pays.

    Raises ``InputError`` for a request that can never fit the KV memory or the token budget,
    unsorted arrivals, missing predictions, or times that overflow the clock.
    """
    if policy.preempts:
        from ssjf.engine.tiered import simulate_tiered

        return simulate_tiered(
            requests, policy, profile, server, None, predicted_tokens, predictor_seconds
        )
    from ssjf.engine.kernel import loop, state  # compiles: only when a simulation runs

    server = server or Server()
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


def predictions(policy: Policy, requests: Requests, predicted) -> FloatArray:
    """What the policy knows of the lengths, shape (n,); NaN where it asks nothing."""
    if isinstance(policy, OraclePolicy):
        return requests.output_tokens.astype(np.float64)
    if predicted is None:
        if policy.uses_prediction:
            raise InputError(f"policy {policy.name} needs predicted lengths and none were given")
        return np.full(len(requests), np.nan)
    predicted = np.asarray(predicted, np.float64)
    if predicted.shape != (len(requests),) or np.isnan(predicted).any():
        raise InputError(f"predicted_tokens must be {len(requests)} numbers, one per request")
    return predicted


def ready_picoseconds(requests: Requests, predictor_seconds: float) -> np.ndarray:
    """When each may first be scheduled, shape (n,): arrivals, checked, and the predictor's time."""
    if len(requests) == 0:
        raise InputError("the workload has no requests")
    if not 0 <= predictor_seconds < 1e6:
        raise InputError(f"predictor_seconds is {predictor_seconds}; it must be from 0 to 1e6")
    arrived = requests.arrived_at
    if not np.isfinite(arrived).all() or arrived[0] < 0 or (np.diff(arrived) < 0).any():
        raise InputError("arrived_at must be finite, not negative and sorted")
    last = arrived[-1] + predictor_seconds
    if last * PICOSECONDS > TIME_LIMIT / 2:
        raise InputError(
            f"the last request arrives after {last:.3g} s, which overflows the time counter; "
            f"at most {TIME_LIMIT // 2 // PICOSECONDS} s are allowed (split or rescale the trace)"
        )
    return np.rint((arrived + predictor_seconds) * PICOSECONDS).astype(np.int64)


def check_fits(requests: Requests, server: Server, profile: Profile) -> None:
    """Can each request be served at all, were it alone?"""
    prompt, output = requests.prompt_tokens, requests.output_tokens
    if prompt.min() < 1 or output.min() < 1:
        raise InputError("prompt_tokens and output_tokens must be at least 1")
    tokens = prompt + output + profile.start_up_steps - 1
    worst = int(np.argmax(tokens))
    needed = -(-int(tokens[worst]) // server.block_tokens)
    if needed > server.blocks:
        raise InputError(
            f"request {worst + 1} needs {needed} KV blocks ({prompt[worst]} prompt + "
            f"{output[worst]} output tokens) and the KV memory has {server.blocks} of "
            f"{server.block_tokens} tokens; give kv_tokens of at least "
            f"{needed * server.block_tokens}"
        )
    if not server.chunked_prefill and tokens[worst] > server.token_budget:
        raise InputError(
            f"request {worst + 1} may have to prefill {tokens[worst]} tokens at once and the "
            f"token budget is {server.token_budget}; raise it or allow chunked_prefill"
        )


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


def drive(loop, state, machine, score: Callable[[], None], instead: str) -> None:
    """Run a machine to its end; ``score`` asks the policy where it stops for that.

    InputError, which says what to do ``instead``, where the clock overflows.
    """
    while (ended := loop.run(*machine)) != state.FINISHED:
        if ended == state.OVERFLOW:
            raise InputError(f"the run passes {TIME_LIMIT // PICOSECONDS} s, the end of the time "
                             f"counter; {instead}")  # fmt: skip
        if ended != state.NEEDS_SCORES:
            raise AssertionError("the simulated server waits for nothing")
        score()


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
