"""Choose the order that keeps a contract, again and again as requests finish.

Recently finished requests are replayed in the simulator, on a server of the same slots whose step
takes as long as a token took here without waiting, and at most the slots' whole time by token. It
starts with an empty queue, and knows neither prefills nor short KV memory, only a queue for slots.
"""

import logging
from collections import deque
from typing import Any, NamedTuple

import numpy as np

from ssjf.request import Requests
from ssjf.scheduler import policy
from ssjf.serving.metrics import metrics

CAUTIOUS = "headstart:1"  # until enough has been seen
TYPICAL_TOKENS = 128.0  # until then, too
SLOTS = 256  # unless the server says
EVERY, WINDOW, MEMORY = 1000, 20_000, 100_000  # finished requests; as of ``simulator.contract``
ALONE = 0.1  # the quantile of seconds per token that stands for requests which did not wait
NONE_KEEPS = "no order lowers the mean and keeps the contract"
LOG = logging.getLogger(__name__)


class Done(NamedTuple):
    """A finished request; times of a monotonic clock, in seconds."""

    arrived_at: float
    predicted_tokens: float
    output_tokens: int
    finished_at: float


class Tuner:
    """Chooses HEADROOM's parameters by ``simulator.contract``.

    One thread may read ``policy``, the order in use, while another sets it. slots: vLLM's
    max_num_seqs.
    """

    def __init__(self, contract: str, slots: int = SLOTS) -> None:
        from ssjf.simulator.contract import Contract

        self._contract, self.slots = Contract.of(contract), slots
        self._rows: deque[Done] = deque(maxlen=WINDOW)
        self._shadows: deque[Any] = deque(maxlen=MEMORY // EVERY)
        self._count = 0
        self.policy = policy(CAUTIOUS)
        metrics().say_policy(CAUTIOUS, f"fewer than {EVERY} requests have finished")

    def finished(self, done: Done) -> None:
        """Note a finished request; choose again after each ``EVERY``."""
        self._rows.append(done)
        self._count += 1
        if self._count % EVERY == 0:
            self._choose()

    def _choose(self) -> None:
        # Only when needed: importing numba takes long
        from ssjf.simulator.contract import best, trials, tuned
        from ssjf.simulator.profile import Profile
        from ssjf.simulator.server import Server

        arrived, predicted, tokens, finished = np.array(sorted(self._rows)).T
        lengths = tokens.astype(np.int64)
        token_seconds = step_seconds(arrived, lengths, finished, self.slots)
        seen = Profile("seen", step_seconds=token_seconds)
        recent = Requests(arrived - arrived[0], np.ones_like(lengths), lengths)
        server = Server(slots=self.slots, token_budget=2 * self.slots)
        tried = trials(recent, predicted, seen, server, self._contract, earlier=self._shadows)
        chosen = best(tried)
        self.policy = tuned(chosen.parameters)
        seconds, share = chosen.parameters[:2]
        metrics().headstart_seconds.set(seconds)
        metrics().room_share.set(share)
        kept = f"{self._contract} is kept by the last {len(recent)}, best mean"
        metrics().say_policy(*(("headroom", kept) if seconds + share else ("fcfs", NONE_KEEPS)))
        metrics().contract_gain.set(chosen.gain_percent)
        metrics().contract_tail.labels("p99").set(chosen.p99)
        metrics().contract_tail.labels("p999").set(chosen.p999)
        LOG.info(
            "contract: %s of %d requests replayed on %d slots (%.3g s a token): head start %.3g s, "
            "share %.3g of the room, mean JCT -%.0f %%, p99 %.2f and p99.9 %.2f times FCFS's",
            chosen.name, len(recent), self.slots, token_seconds, seconds, share,
            chosen.gain_percent, chosen.p99, chosen.p999,
        )  # fmt: skip


def step_seconds(
    arrived_at: np.ndarray, output_tokens: np.ndarray, finished_at: np.ndarray, slots: int
) -> float:
    """Return the seconds of a token: the smaller of two measures that are hardly too small.

    A request's time by token, at the quantile ``ALONE``, includes its wait; the time of all slots
    by token includes idle ones. So it is about right if some requests do not wait, or if no slot
    is ever idle.
    """
    by_request = np.quantile((finished_at - arrived_at) / output_tokens, ALONE)
    by_slot = slots * (finished_at.max() - arrived_at.min()) / output_tokens.sum()
    return max(float(min(by_request, by_slot)), 1e-6)
