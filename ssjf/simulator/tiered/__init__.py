"""The serving machine with two tiers of KV memory and with preemption by priority.

A step-by-step machine like ``engine.kernel``'s: the same admission order, token budget,
chunked prefill and blocks. It adds policies that may preempt, KV that moves to the host and
back, and reservations. It visits each running request at each step: simpler, and slower.
``simulate_tiered`` takes the other where nothing here is asked for.

Compiled by numba; ``state`` says what there is, ``loop`` what happens in a step.
"""

from ssjf.simulator.tiered.simulator import TieredCompletions, simulate_tiered

__all__ = ["TieredCompletions", "simulate_tiered"]
