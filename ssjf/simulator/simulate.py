"""The iteration-level simulator: exact, in integer time, one policy at a time."""

from ssjf.request import Completions, FloatArray, Requests
from ssjf.scheduler import Policy
from ssjf.simulator.one_tier import simulate_one_tier
from ssjf.simulator.profile import Profile
from ssjf.simulator.server import Server
from ssjf.simulator.tiered import simulate_tiered


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
        return simulate_tiered(
            requests, policy, profile, server, None, predicted_tokens, predictor_seconds
        )
    server = server or Server()
    return simulate_one_tier(
        requests, policy, profile, server, predicted_tokens, predictor_seconds, skip_quiet_steps
    )
