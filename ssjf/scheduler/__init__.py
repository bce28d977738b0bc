"""Who goes next: an ordering, written once, for the simulator and for vLLM."""

from ssjf.scheduler.base import OraclePolicy, Policy, Queue
from ssjf.scheduler.registry import known_policies, policy

__all__ = ["OraclePolicy", "Policy", "Queue", "known_policies", "policy"]
