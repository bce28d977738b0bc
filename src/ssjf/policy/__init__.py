"""Who goes next: an ordering, written once, for the simulator and for vLLM."""

from ssjf.policy.base import OraclePolicy, Policy, Queue
from ssjf.policy.registry import known_policies, policy

__all__ = ["OraclePolicy", "Policy", "Queue", "known_policies", "policy"]
