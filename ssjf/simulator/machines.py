"""What the simulated machines share: checks of what they are given, their clock, how they run."""

from collections.abc import Callable

import numpy as np

from ssjf.errors import InputError
from ssjf.request import FloatArray, Requests
from ssjf.scheduler import OraclePolicy, Policy
from ssjf.simulator.profile import PICOSECONDS, Profile
from ssjf.simulator.server import Server

TIME_LIMIT = 2**62  # picoseconds: 53 days


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
