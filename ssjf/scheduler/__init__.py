"""Orders of waiting requests, each written once for the simulator and for vLLM."""

from ssjf.scheduler.base import AtArrival, Moving, OraclePolicy, Policy, Queue
from ssjf.scheduler.registry import known_policies, policy

__all__ = ["AtArrival", "Moving", "OraclePolicy", "Policy", "Queue", "known_policies", "policy"]
