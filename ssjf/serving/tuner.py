"""The order that keeps a contract, chosen anew as requests finish.

What has lately finished is replayed in the simulator on a server of as many slots, whose step
takes what a token took here where nothing waited, and no more than the slots' whole time by token.
It starts with an empty queue, and knows neither prefills nor short KV memory: it sees a queue for
slots and no other.
"""

import logging
from collections import deque
from typing import Any, NamedTuple

import numpy as np

from ssjf.request import Requests
from ssjf.scheduler import policy
from ssjf.serving.metrics import metrics

CAUTIOUS = "headstart:1"  # until enough has been seen
TYPICAL_TOKENS = 128.0  # likewise
SLOTS = 256  # where the server does not say them
EVERY, WINDOW, MEMORY = 1000, 20_000, 100_000  # finished requests; as of ``simulator.contract``
ALONE = 0.1  # this quantile of seconds per token is that of a request which did not wait
NONE_KEEPS = "no order lowers the mean and keeps the contract"
LOG = logging.getLogger(__name__)


class Done(NamedTuple):
    """A finished request; times of a monotonic clock, in seconds."""

    arrived_at: float
    predicted_tokens: float
    output_tokens: int
    finished_at: float


class Tuner:
    """Chooses HEADROOM's numbers by ``simulator.contract``; one thread may read ``policy``, the
    order in use, which another one sets. slots: vLLM's max_num_seqs."""

    def __init__(self, contract: str, slots: int = SLOTS) -> None:
        from ssjf.simulator.contract import Contract

        self._contract, self.slots = Contract.of(contract), slots
        self._rows: deque[Done] = deque(maxlen=WINDOW)
        self._shadows: deque[Any] = deque(maxlen=MEMORY // EVERY)
        self._count = 0
        self.policy = policy(CAUTIOUS)
        metrics().say_policy(CAUTIOUS, f"fewer than {EVERY} requests have finished")

    def finished(self, done: Done) -> None:
        """Note a finished request, and choose anew where ``EVERY`` more have."""
        self._rows.append(done)
        self._count += 1
        if self._count % EVERY == 0:
            self._choose()

    def _choose(self) -> None:
        # Only where it is asked for: numba takes its time to import
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
    """Seconds that a token takes, by two measures that are hardly short of it: a request's time by
    token, at ``ALONE``, which counts its wait, and all slots' time by token, which counts the idle.

    So it is about right where some requests do not wait, and where no slot is ever idle.
    """
    by_request = np.quantile((finished_at - arrived_at) / output_tokens, ALONE)
    by_slot = slots * (finished_at.max() - arrived_at.min()) / output_tokens.sum()
    return max(float(min(by_request, by_slot)), 1e-6)
