"""vLLM 0.32's scheduler with what 0.33 changes in it, made where this module is imported.

Of 0.33.0's ``vllm/v1/core/sched/scheduler.py`` (``Scheduler.schedule``): under ``priority`` a
request that has preempted itself does not end the loop over those that run. There is no 0.33 for a
CPU; the rest of its changes concerns what is not used here (speculation, encoders, LoRA, Mamba).
``shortest`` is a policy whose module the engine's process imports: a static key would need none.
"""

import inspect
import textwrap

from ssjf.scheduler import Policy
from ssjf.scheduler.orderings import shortest_predicted

BEFORE = """            if new_blocks is None:
                # Cannot schedule this request.
                break
"""
AFTER = """            if new_blocks is None:
                if (
                    self.policy == SchedulingPolicy.PRIORITY
                    and request.status == RequestStatus.PREEMPTED
                ):
                    continue
                # Cannot schedule this request.
                break
"""
shortest = Policy("shortest", shortest_predicted)  # asked anew at each step


def change(module):
    source = textwrap.dedent(inspect.getsource(module.Scheduler.schedule))
    before, after = (textwrap.indent(textwrap.dedent(part), 8 * " ") for part in (BEFORE, AFTER))
    assert source.count(before) == 1, "vLLM's scheduler is another one"
    exec(source.replace(before, after), module.__dict__)
    module.Scheduler.schedule = module.__dict__.pop("schedule")


try:
    from vllm.v1.core.sched import scheduler
except ModuleNotFoundError:  # in the process of the tests
    pass
else:
    change(scheduler)
