"""What the machine starts with: checks of what was given, constants, and the policy's order."""

import numpy as np

from ssjf.errors import InputError
from ssjf.request import FloatArray, Requests
from ssjf.scheduler import Policy, Queue
from ssjf.scheduler.alise import Remaining, check_lengths
from ssjf.scheduler.alise_time import TimeModel
from ssjf.simulator.machines import TIME_LIMIT, check_fits
from ssjf.simulator.memory import ON_PREEMPTION, Memory
from ssjf.simulator.profile import PICOSECONDS, Profile
from ssjf.simulator.server import Server


def time_model(profile: Profile) -> TimeModel:
    """ALISE's coefficients of a machine: what a request takes that is served alone."""
    return TimeModel(
        profile.per_prefill_token_seconds,
        profile.per_context_token_seconds,
        profile.step_seconds + profile.per_sequence_seconds,
    )


def check(requests: Requests, profile: Profile, server: Server, memory: Memory) -> None:
    """Raise InputError for what this machine cannot serve."""
    if server.batching == "dynamic":
        raise InputError(
            "batching 'dynamic' forms batches that nobody leaves or joins; preemption by priority, "
            "swapping and reservations need 'continuous' or 'none'"
        )
    check_fits(requests, server, profile)
    longest = requests.prompt_tokens + requests.output_tokens + profile.start_up_steps - 1
    worst = int(np.argmax(longest))
    tokens = int(longest[worst])
    _check_reserve(worst, tokens, server, memory)
    needed = -(-tokens // server.block_tokens) * server.block_tokens
    if memory.swaps and memory.host_capacity_tokens < needed:
        raise InputError(
            f"the host memory holds {memory.host_capacity_tokens} KV tokens as they are kept "
            f"there and request {worst + 1} may need {needed}; give host_tokens of at least "
            f"{-(-needed // memory.compression)}, or on_preemption 'recompute'"
        )
    _check_clock(tokens, profile, server, memory)


def _check_reserve(worst: int, tokens: int, server: Server, memory: Memory) -> None:
    if memory.reserve != "maximum" or memory.maximum_tokens is None:
        return
    if tokens > memory.maximum_tokens:
        raise InputError(
            f"request {worst + 1} needs {tokens} KV tokens and maximum_tokens, what is reserved "
            f"for each, is {memory.maximum_tokens}"
        )
    if memory.maximum_tokens > server.blocks * server.block_tokens:
        raise InputError(
            f"maximum_tokens is {memory.maximum_tokens} and the KV memory has "
            f"{server.blocks * server.block_tokens} tokens: no request could be admitted"
        )


def _check_clock(tokens: int, profile: Profile, server: Server, memory: Memory) -> None:
    """Could one step or one copy pass the end of the clock? (Float: no wrapping.)"""
    step, sequence, context, prefill = map(float, profile.picoseconds())
    running = min(server.running_slots, server.token_budget)
    step += running * (sequence + context * tokens) + prefill * server.token_budget
    copy = tokens * max(memory.token_picoseconds()) + memory.latency_seconds * PICOSECONDS
    for what, picoseconds in (("step", step), ("copy", copy)):
        if picoseconds > TIME_LIMIT / 64:
            raise InputError(
                f"one {what} could take {picoseconds / PICOSECONDS:.3g} s; the time counter "
                f"allows {TIME_LIMIT // 64 // PICOSECONDS} s"
            )


def machine(
    state,
    requests: Requests,
    policy: Policy,
    profile: Profile,
    server: Server,
    memory: Memory,
    predicted: FloatArray,
    ready: np.ndarray,
):
    """The arrays of ``state`` at time 0, and what the policy sees of the requests."""
    check(requests, profile, server, memory)
    total = requests.output_tokens + profile.start_up_steps
    queue = Queue(requests.arrived_at, requests.prompt_tokens, predicted, np.zeros_like(total))
    score = policy.score
    remaining = score if isinstance(score, Remaining) else None
    if remaining or memory.on_preemption == "ewt":
        check_lengths(predicted)
    c = np.zeros(1, state.CONSTANTS)
    _machine_constants(c, profile, server)
    _memory_constants(c, server, memory)
    _order_constants(c, state, policy, remaining, time_model(profile))
    boundaries = remaining.boundaries if remaining else ()
    made = state.new_machine(c, ready, requests.prompt_tokens, total, boundaries)
    q = made[2]
    q["arrived"] = requests.arrived_at
    q["estimate"] = np.maximum(predicted, 1.0) + profile.start_up_steps
    if memory.reserve == "maximum":
        q["reserved"] = memory.maximum_tokens
    if memory.reserve == "true":
        q["reserved"] = requests.prompt_tokens + total - 1
    _set_order(q, policy, queue)
    return made, queue


def _machine_constants(c, profile: Profile, server: Server) -> None:
    c["slots"] = server.running_slots
    c["block"], c["blocks"] = server.block_tokens, server.blocks
    c["watermark"] = int(server.watermark * server.blocks)
    c["budget"], c["chunked"] = server.token_budget, server.chunked_prefill
    c["lead"] = profile.start_up_steps
    times = ("step_time", "sequence_time", "context_time", "prefill_time")
    for name, picoseconds in zip(times, profile.picoseconds(), strict=True):
        c[name] = picoseconds
    c["limit"] = TIME_LIMIT


def _memory_constants(c, server: Server, memory: Memory) -> None:
    c["on_preemption"] = ON_PREEMPTION.index(memory.on_preemption)
    c["host_blocks"] = memory.host_capacity_tokens // server.block_tokens
    c["latency"] = round(memory.latency_seconds * PICOSECONDS)
    c["overlap"] = memory.overlap
    c["out_time"], c["in_time"] = memory.token_picoseconds()
    c["spare_blocks"] = int(memory.spare_share * server.blocks)
    c["ahead"] = round(memory.ahead_seconds * PICOSECONDS)


def _order_constants(c, state, policy: Policy, remaining: Remaining | None, own) -> None:
    c["preempts"] = policy.preempts
    c["kind"] = _kind(state, policy, remaining)
    c["promotion"] = remaining.promotion_seconds if remaining else np.inf
    growth = remaining.context_growth if remaining else True
    model = (remaining.on(own).time if remaining else None) or own
    for name, times, grows in (("order", model, growth), ("wait", own, growth)):
        c[f"{name}_prefill"] = times.prefill_token_seconds
        c[f"{name}_context"] = times.context_token_seconds
        c[f"{name}_token"] = times.token_seconds
        c[f"{name}_growth"] = grows


def _kind(state, policy: Policy, remaining: Remaining | None) -> int:
    if remaining:
        return state.REMAINING
    if policy.promote_after is not None:
        return state.BOUNDED
    return {"constant": state.STATIC, "linear": state.LINEAR, "any": state.ANY}[policy.in_time]


def _set_order(q, policy: Policy, queue: Queue) -> None:
    """Fixed scores, base and slope, or times of promotion."""
    if policy.in_time == "any":
        return
    base = policy.scores(queue, 0.0)
    if policy.in_time == "linear":
        q["base"] = base
        q["slope"] = policy.scores(queue, 1.0) - base
    q["score"] = base
    if policy.promote_after is not None:
        bound = np.asarray(policy.promote_after(queue), np.float64)
        if bound.shape != (len(queue),) or not (bound >= 0).all():
            raise InputError(f"policy {policy.name}: promote_after must give times of at least 0")
        patience = np.minimum(bound * PICOSECONDS, TIME_LIMIT / 2).astype(np.int64)
        q["promote_at"] = q["ready"] + patience
