"""The machine's arrays at time 0, made from the checked requests, policy, server and memory."""

from collections.abc import Sequence

import numpy as np

from ssjf.errors import InputError
from ssjf.request import FloatArray, Requests
from ssjf.scheduler import OraclePolicy, Policy, Queue
from ssjf.scheduler.alise import Remaining, TimeModel, check_lengths
from ssjf.scheduler.base import Compiled
from ssjf.simulator.core import state
from ssjf.simulator.core.compiled import native
from ssjf.simulator.core.state import TIME_LIMIT
from ssjf.simulator.profile import PICOSECONDS, Profile
from ssjf.simulator.server import ON_PREEMPTION, UNLIMITED, Memory, Server

JUMP_UP_TO_RUNNING = 32  # jumping over quiet steps pays up to this batch
MOST_TOKENS = 2**31 - 1  # of one request: the machine counts them in 32 bits


def time_model(profile: Profile) -> TimeModel:
    """ALISE's coefficients of a machine, from the time of a request that is served alone."""
    return TimeModel(
        profile.per_prefill_token_seconds,
        profile.per_context_token_seconds,
        profile.step_seconds + profile.per_sequence_seconds,
    )


def predictions(policy: Policy, requests: Requests, predicted) -> FloatArray:
    """The lengths that the policy reads, checked, shape (n,); NaN if it reads none."""
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
    """When each request may be scheduled, shape (n,): checked arrival + ``predictor_seconds``."""
    if len(requests) == 0:
        raise InputError("the workload has no requests")
    if not 0 <= predictor_seconds < 1e6:
        raise InputError(f"predictor_seconds is {predictor_seconds}; it must be from 0 to 1e6")
    arrived = requests.arrived_at
    is_sorted = arrived[0] >= 0 and (arrived[1:] >= arrived[:-1]).all()  # false for NaN
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
    """Raise InputError for a request that this machine could not serve even alone."""
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
    """Raise InputError if one copy or one jump over steps could overflow (floats do not wrap)."""
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
    policy: Policy,
    profile: Profile,
    server: Server,
    memory: Memory,
    predicted_tokens: FloatArray | None,
    predictor_seconds: float,
    jump_quiet_steps: bool | None,
):
    """Return the arrays of ``state`` at time 0; the parameters are those of ``simulate``."""
    n = len(requests)
    predicted = predictions(policy, requests, predicted_tokens)
    queue = Queue(requests.arrived_at, requests.prompt_tokens, predicted, np.zeros(n, np.int64))
    ready = ready_picoseconds(requests, predictor_seconds)
    check(requests, profile, server, memory)
    total = requests.output_tokens + profile.start_up_steps
    remaining = policy.score if isinstance(policy.score, Remaining) else None
    function = policy.score if isinstance(policy.score, Compiled) else None
    if remaining or memory.on_preemption == "ewt":
        check_lengths(predicted)
    record = np.zeros(1, state.MACHINE)
    m = record[0]
    m["jump_up_to"] = {None: JUMP_UP_TO_RUNNING, True: UNLIMITED, False: 0}[jump_quiet_steps]
    m["until"], m["limit"], m["stop_at"] = n, TIME_LIMIT, state.NEVER
    _set_server(m, profile, server)
    _set_memory(m, server, memory)
    _set_policy(m, policy, remaining, time_model(profile))
    if function:
        _set_function(record, function, policy.victims or function, policy.made_at_arrival)
    longest = int((requests.prompt_tokens + total).max()) // server.block_tokens + 1
    m["plain"] = not (policy.preempts or memory.swaps or memory.on_preemption == "defer")
    m["plain"] &= memory.reserve == "none"
    # Running requests are only listed where one of them may have to be found.
    m["listed"] = not m["plain"] or longest * server.slots > server.blocks
    m["step"], m["next_ready"], m["copy_ends"] = 1, ready[0], state.NEVER
    m["best"] = m["first_running"] = m["last_running"] = state.NONE
    # Events of different steps must not share a bucket.
    m["ring_size"] = size = max(64, 1 << int(total.max() + 2).bit_length())
    m["growth_at"] = size + (size >> 6)
    cells = np.zeros(size + (size >> 6) + server.block_tokens, np.int64)
    cells[:size] = state.NONE
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
        extra["estimate"] = np.maximum(predicted, 1.0) + profile.start_up_steps
    if function:
        extra["arrived"], extra["base"] = queue.arrived_at, predicted
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
    m["step_time"], m["sequence_time"], m["context_time"], m["prefill_time"] = profile.picoseconds()


def _set_memory(m, server: Server, memory: Memory) -> None:
    m["on_preemption"] = ON_PREEMPTION.index(memory.on_preemption)
    m["reserves"], m["overlap"] = memory.reserve != "none", memory.overlap
    host_blocks = memory.host_capacity_tokens // server.block_tokens
    m["host_blocks"] = m["host_free"] = m["least_host_free"] = host_blocks
    m["latency"] = round(memory.latency_seconds * PICOSECONDS)
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
    estimate = remaining or Remaining(context_growth=True)
    m["promotion"] = estimate.promotion_seconds
    m["tracked"] = kind == state.BOUNDED or len(estimate.boundaries) > 0
    for name, model in (("order", estimate.time or own), ("wait", own)):
        m[f"{name}_prefill"] = model.prefill_token_seconds
        m[f"{name}_context"] = model.context_token_seconds
        m[f"{name}_token"] = model.token_seconds
        m[f"{name}_growth"] = estimate.context_growth


def _set_function(record: np.ndarray, score: Compiled, victims: Compiled, at_arrival: bool) -> None:
    m, n = record[0], len(score.parameters)
    m["at_arrival"], m["kind"] = at_arrival, state.STATIC if at_arrival else state.MOVING
    m["function"], m["victims"] = (native(one.function, n).address for one in (score, victims))
    set_parameters(m, score.parameters)
    m["parameters"] = record[state.PARAMETERS[0]].ctypes.data  # the others follow in memory


def set_parameters(m, values: Sequence[float]) -> None:
    """Set the parameters of a compiled score."""
    for name, value in zip(state.PARAMETERS, values, strict=False):
        m[name] = value


def _set_scores(records, extra, ready, policy: Policy, queue: Queue) -> None:
    records["score"] = base = policy.scores(queue, 0.0)
    if policy.in_time == "linear":
        extra["base"], extra["slope"] = base, policy.scores(queue, 1.0) - base
    if policy.promote_after is not None:
        bound = np.asarray(policy.promote_after(queue), np.float64)
        if bound.shape != (len(queue),) or not (bound >= 0).all():
            raise InputError(f"policy {policy.name}: promote_after must give times of at least 0")
        patience = np.minimum(bound * PICOSECONDS, TIME_LIMIT / 2).astype(np.int64)
        extra["promote_at"] = ready + patience
