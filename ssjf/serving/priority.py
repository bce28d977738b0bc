"""The key that orders requests: what vLLM takes as ``priority``, smaller first."""

import numpy as np

from ssjf.scheduler import Queue, policy
from ssjf.serving.options import ServeOptions

PER_UNIT = 1000  # priorities are whole numbers: milliseconds, or thousandths of a token


class Keys:
    """Priorities by one of the package's policies whose scores do not change as time goes by.

    With ``overtake_seconds`` T it is ``ssjf-aged`` at ``longest_tokens`` / T tokens per second,
    told in milliseconds: arrival + T * predicted / longest. As ``predicted`` is cut to
    1 … longest, a request is never overtaken by one that arrives more than T later (to the
    millisecond; vLLM breaks ties by arrival). T = 0 is ``fcfs``; without T it is ``ssjf``, whose
    keys are predictions alone.
    """

    def __init__(self, options: ServeOptions) -> None:
        overtake, self._longest = options.overtake_seconds, float(options.longest_tokens)
        self._per_score = float(PER_UNIT)
        if overtake is None:
            self.policy, self._longest = policy("ssjf"), np.inf
        elif overtake == 0:
            self.policy = policy("fcfs")
        else:
            rate = self._longest / overtake
            self.policy = policy(f"ssjf-aged:{rate!r}")
            self._per_score /= rate

    def priority(self, arrived_at: float, predicted_tokens: float) -> int:
        """The key of a request that arrived at a monotonic clock's seconds."""
        tokens = min(max(predicted_tokens, 1.0), self._longest)
        none = np.zeros(1, np.int64)
        queue = Queue(np.array([arrived_at]), none, np.array([tokens]), none)
        return round(float(self.policy.scores(queue, arrived_at)[0]) * self._per_score)
