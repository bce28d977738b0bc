"""What the machine starts with: checks of what was given, constants, and the policy's order."""

from collections.abc import Sequence

import numpy as np

from ssjf.simulator.core import state
from ssjf.simulator.core.compiled import native
from ssjf.simulator.server import ON_PREEMPTION, Memory, Server
from ssjf.simulator.profile import PICOSECONDS, Profile
from ssjf.errors import InputError
from ssjf.scheduler import OraclePolicy, Policy, Queue
from ssjf.scheduler.base import Compiled
from ssjf.scheduler.alise import Remaining, TimeModel, check_lengths
from ssjf.request import FloatArray, Requests

TIME_LIMIT = 2**62  # picoseconds: 53 days
JUMP_UP_TO_RUNNING = 32  # jumping over quiet steps pays up to this batch
MOST_TOKENS = 2**31 - 1  # of one request: what the machine counts in


def time_model(profile: Profile) -> TimeModel:
    """ALISE's coefficients of a machine: what a request takes that is served alone."""
    return TimeModel(
        profile.per_prefill_token_seconds,
        profile.per_context_token_seconds,
        profile.step_seconds + profile.per_sequence_seconds,
    )


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
    is_sorted = arrived[0] >= 0 and (arrived[1:] >= arrived[:-1]).all()  # neither is NaN
    if not is_sorted or not np.isfinite(arrived[-1]):
        raise InputError("arrived_at must be finite, not negative and sorted")
    last = arrived[-1] + predictor_seconds
    if last * PICOSECONDS > TIME_LIMIT / 2:
        raise InputError(
            f"the last request arrives after {last:.3g} s, which overflows the time counter; "
            f"at most {TIME_LIMIT // 2 // PICOSECONDS} s are allowed (split or rescale the trace)"
        )
    return np.rint((arrived + predictor_seconds) * PICOSECONDS).astype(np.int64)


def check(requests: Requests, profile: Profile, server: Server, memory: Memory) -> None:
    """Raise InputError for what this machine cannot serve, were each request alone."""
    if requests.prompt_tokens.min() < 1 or requests.output_tokens.min() < 1:
        raise InputError("prompt_tokens and output_tokens must be at least 1")
    held = requests.prompt_tokens + requests.output_tokens + profile.start_up_steps - 1
    longest = int(np.argmax(held))
    tokens, name = int(held[longest]), f"request {longest + 1}"
    blocks = -(-tokens // server.block_tokens)
    needed, kv_tokens = blocks * server.block_tokens, server.blocks * server.block_tokens
    if tokens > MOST_TOKENS:
        raise InputError(f"{name} has {tokens} tokens; at most {MOST_TOKENS} can be")
    if needed > kv_tokens:
        raise InputError(
            f"{name} needs {blocks} KV blocks ({requests.prompt_tokens[longest]} prompt + "
            f"{requests.output_tokens[longest]} output tokens) and the KV memory has "
            f"{server.blocks} of {server.block_tokens} tokens; give kv_tokens of at least {needed}"
        )
    if not server.chunked_prefill and tokens > server.token_budget:
        raise InputError(
            f"{name} may have to prefill {tokens} tokens at once and the "
            f"token budget is {server.token_budget}; raise it or allow chunked_prefill"
        )
    if memory.swaps and memory.host_capacity_tokens < needed:
        raise InputError(
            f"the host memory holds {memory.host_capacity_tokens} KV tokens as they are kept "
            f"there and {name} may need {needed}; give host_tokens of at least "
            f"{-(-needed // memory.compression)}, or on_preemption 'recompute'"
        )
    maximum = memory.maximum_tokens or 0
    if memory.reserve == "maximum" and tokens > maximum:
        raise InputError(
            f"{name} needs {tokens} KV tokens and maximum_tokens, what is reserved "
            f"for each, is {maximum}"
        )
    if memory.reserve == "maximum" and maximum > kv_tokens:
        raise InputError(
            f"maximum_tokens is {maximum} and the KV memory has {kv_tokens} tokens: "
            "no request could be admitted"
        )
    _check_clock(requests, tokens, profile, server, memory)


def _check_clock(requests: Requests, tokens: int, profile: Profile, server, memory) -> None:
    """Could one copy, or one jump over steps, pass the end of the clock? (Float: no wrapping.)"""
    step, sequence, context, prefill = map(float, profile.picoseconds())
    step += server.slots * (sequence + context * tokens) + prefill * server.token_budget
    steps = float(requests.output_tokens.max()) + profile.start_up_steps + 2
    if step * steps > TIME_LIMIT / 4:
        raise InputError(
            "one request could run for more than the time counter holds "
            f"({TIME_LIMIT // 4 // PICOSECONDS} s); the profile's coefficients are too large"
        )
    copy = tokens * max(memory.token_picoseconds()) + memory.latency_seconds * PICOSECONDS
    if copy > TIME_LIMIT / 64:
        raise InputError(
            f"one copy could take {copy / PICOSECONDS:.3g} s; the time counter "
            f"allows {TIME_LIMIT // 64 // PICOSECONDS} s"
        )


def machine(
    requests: Requests,
    queue: Queue,
    policy: Policy,
    profile: Profile,
    server: Server,
    memory: Memory,
    ready: np.ndarray,
    jump_up_to: int,
):
    """The arrays of ``state`` at time 0; ``queue`` is what the policy sees of the requests."""
    total = requests.output_tokens + profile.start_up_steps
    remaining = policy.score if isinstance(policy.score, Remaining) else None
    function = policy.score if isinstance(policy.score, Compiled) else None
    if remaining or memory.on_preemption == "ewt":
        check_lengths(queue.predicted_tokens)
    record = np.zeros(1, state.MACHINE)
    m = record[0]
    m["jump_up_to"], m["limit"], m["stop_at"] = jump_up_to, TIME_LIMIT, state.NEVER
    _set_server(m, profile, server)
    _set_memory(m, server, memory)
    _set_policy(m, policy, remaining, time_model(profile))
    if function:
        _set_function(record, function, policy.victims or function, policy.made_at_arrival)
    longest = int((requests.prompt_tokens + total).max()) // server.block_tokens + 1
    m["plain"] = not (policy.preempts or memory.swaps or memory.on_preemption == "defer")
    m["plain"] &= memory.reserve == "none"
    # Who runs is only listed where somebody may be looked for.
    m["listed"] = not m["plain"] or longest * server.slots > server.blocks
    m["step"], m["next_ready"], m["copy_ends"] = 1, ready[0], state.NEVER
    m["best"] = m["first_running"] = m["last_running"] = state.NONE
    # No two events of running requests may meet in a bucket.
    m["ring_size"] = size = max(64, 1 << int(total.max() + 2).bit_length())
    m["growth_at"] = size + (size >> 6)
    cells = np.zeros(size + (size >> 6) + server.block_tokens, np.int64)
    cells[:size] = state.NONE
    m["until"] = n = len(requests)
    records, extra = np.zeros(n, state.REQUEST), np.zeros(n, state.EXTRA)
    records["prompt"], records["total"] = requests.prompt_tokens, total
    if memory.reserve != "none":
        held = requests.prompt_tokens + total - 1
        records["reserved"] = memory.maximum_tokens if memory.reserve == "maximum" else held
    levels = np.asarray(remaining.boundaries if remaining else (), np.float64)
    m["levels"] = len(levels)
    tables = np.empty((state.TABLES, max(n, len(levels))), state.ENTRY)  # written before read
    tables["key"][state.LEVELS, : len(levels)] = levels.view(np.int64)
    times = np.empty((4, n), np.int64)
    times[state.READY] = ready
    if remaining or memory.on_preemption == "ewt":
        extra["arrived"] = queue.arrived_at
        extra["estimate"] = np.maximum(queue.predicted_tokens, 1.0) + profile.start_up_steps
    if function:
        extra["arrived"], extra["base"] = queue.arrived_at, queue.predicted_tokens
    elif not remaining and policy.in_time != "any":
        _set_scores(records, extra, ready, policy, queue)
    return record, records, extra, tables, times, cells


def _set_server(m, profile: Profile, server: Server) -> None:
    m["slots"] = server.slots
    m["block"] = block = server.block_tokens
    m["shift"] = block.bit_length() - 1 if block.bit_count() == 1 else state.NONE
    m["blocks"] = m["free"] = m["least_free"] = server.blocks
    m["watermark"] = int(server.watermark * server.blocks)
    m["budget"], m["chunked"] = server.token_budget, server.chunked_prefill
    m["goes_on"], m["lead"] = server.vllm != "0.32", profile.start_up_steps
    times = ("step_time", "sequence_time", "context_time", "prefill_time")
    for name, picoseconds in zip(times, profile.picoseconds(), strict=True):
        m[name] = picoseconds


def _set_memory(m, server: Server, memory: Memory) -> None:
    m["on_preemption"] = ON_PREEMPTION.index(memory.on_preemption)
    m["reserves"] = memory.reserve != "none"
    host_blocks = memory.host_capacity_tokens // server.block_tokens
    m["host_blocks"] = m["host_free"] = m["least_host_free"] = host_blocks
    m["latency"] = round(memory.latency_seconds * PICOSECONDS)
    m["overlap"] = memory.overlap
    m["out_time"], m["in_time"] = memory.token_picoseconds()
    m["spare_blocks"] = int(memory.spare_share * server.blocks)
    m["ahead"] = round(memory.ahead_seconds * PICOSECONDS)


def _set_policy(m, policy: Policy, remaining: Remaining | None, own: TimeModel) -> None:
    kinds = {"constant": state.STATIC, "linear": state.LINEAR, "any": state.ANY}
    kind = kinds[policy.in_time] if policy.promote_after is None else state.BOUNDED
    kind = m["kind"] = state.REMAINING if remaining else kind
    m["displaces"] = policy.preempts and m["on_preemption"] != state.DEFER
    m["ranked"] = m["displaces"] and kind < state.LINEAR
    m["follows"] = m["ranked"] and kind == state.REMAINING
    m["promotion"] = remaining.promotion_seconds if remaining else np.inf
    ages = remaining is not None and len(remaining.boundaries) > 0
    m["tracked"] = kind == state.BOUNDED or ages
    growth = remaining.context_growth if remaining else True
    model = (remaining.time if remaining else None) or own
    for name, times in (("order", model), ("wait", own)):
        m[f"{name}_prefill"] = times.prefill_token_seconds
        m[f"{name}_context"] = times.context_token_seconds
        m[f"{name}_token"] = times.token_seconds
        m[f"{name}_growth"] = growth


def _set_function(record: np.ndarray, score: Compiled, victims: Compiled, at_arrival: bool) -> None:
    m, n = record[0], len(score.parameters)
    m["at_arrival"], m["kind"] = at_arrival, state.STATIC if at_arrival else state.MOVING
    m["function"], m["victims"] = (native(each.function, n).address for each in (score, victims))
    set_parameters(m, score.parameters)
    m["parameters"] = record[state.PARAMETERS[0]].ctypes.data  # the others lie behind it


def set_parameters(m, values: Sequence[float]) -> None:
    """Those of a compiled score, from now on."""
    for name, value in zip(state.PARAMETERS, values, strict=False):
        m[name] = value


def _set_scores(records, extra, ready, policy: Policy, queue: Queue) -> None:
    """Fixed scores, base and slope, times of promotion."""
    records["score"] = base = policy.scores(queue, 0.0)
    if policy.in_time == "linear":
        extra["base"], extra["slope"] = base, policy.scores(queue, 1.0) - base
    if policy.promote_after is not None:
        bound = np.asarray(policy.promote_after(queue), np.float64)
        if bound.shape != (len(queue),) or not (bound >= 0).all():
            raise InputError(f"policy {policy.name}: promote_after must give times of at least 0")
        patience = np.minimum(bound * PICOSECONDS, TIME_LIMIT / 2).astype(np.int64)
        extra["promote_at"] = ready + patience
