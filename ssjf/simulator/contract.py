"""The contract tuner: among candidate orders, find the best mean JCT that keeps a stated tail.

Recent traffic is replayed in the simulator under FCFS and under each candidate. The tail is judged
by the difference to FCFS on the same requests, not by itself.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple, Self

import numpy as np

from ssjf.errors import InputError
from ssjf.request import Completions, FloatArray, IntArray, Requests
from ssjf.scheduler import AtArrival, Policy, policy
from ssjf.scheduler.tail import with_room
from ssjf.simulator.profile import Profile
from ssjf.simulator.server import Server
from ssjf.simulator.simulate import simulate

HEADSTARTS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)  # times the mean wait of requests that wait under FCFS
SHARES = (0.0, 0.3, 0.8)  # of the room, in HEADROOM
SHORTEST, LONGEST = 0.01, 0.8  # quantiles to which HEADROOM clips the predictions
WINDOW, EVERY = 20_000, 10_000  # requests in a replay, and between two replays
MEMORY = 100_000  # requests over whose replays FCFS's waits are averaged
FEWEST = 1_000  # requests in a window
BLOCKS = 30  # consecutive stretches whose differences are taken as independent
SURELY = 0.5  # standard errors


@dataclass(frozen=True)
class Contract:
    """The most that the tail of the JCT may be, as multiples of FCFS's p99 and p99.9."""

    p99: float = 1.05
    p999: float = 1.10

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 1 <= value < math.inf:
                raise InputError(f"contract {name}={value}; it must be a number of at least 1")

    def __str__(self) -> str:
        return f"p99={self.p99:g},p999={self.p999:g}"

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the contract that is written as ``p99=1.05,p999=1.10``."""
        limits = {}
        for term in text.split(","):
            name, _, value = term.partition("=")
            if name not in LEVELS:
                raise InputError(f"contract {text!r}: unknown quantile {name!r}; known: p99, p999")
            try:
                limits[name] = float(value)
            except ValueError:
                raise InputError(f"contract {text!r}: {value!r} is not a number") from None
        return cls(**limits)


LEVELS = {"p99": 0.99, "p999": 0.999}


class Shadow(NamedTuple):
    """What FCFS does with some traffic, in seconds: the mean wait of the requests that wait, the
    p99 of the JCT, the time per token, and the p99 of the wait."""

    wait: float
    tail: float
    token: float
    tail_wait: float

    @classmethod
    def of(cls, fcfs: Completions) -> Self:
        waits = fcfs.scheduled_at - fcfs.requests.arrived_at
        waited = waits[waits > 0]
        served = fcfs.finished_at - fcfs.scheduled_at
        return cls(
            float(waited.mean()) if len(waited) else 0.0,
            float(np.quantile(fcfs.finished_at - fcfs.requests.arrived_at, 0.99)),
            float(served.sum() / fcfs.requests.output_tokens.sum()),
            float(np.quantile(waits, 0.99)),
        )

    def room(
        self, times: float, share: float, predicted: FloatArray, slots: int
    ) -> tuple[float, ...]:
        """HEADROOM's parameters: a head start of ``times`` mean waits, and a share of the room."""
        shortest, longest = np.quantile(predicted, [SHORTEST, LONGEST]).tolist()
        shortest = max(shortest, 1.0)
        longest = max(longest, 2 * shortest)  # all may be alike
        return times * self.wait, share, self.tail_wait, shortest, longest, self.token, float(slots)


class Trial(NamedTuple):
    """A replayed order: HEADROOM's parameters, by how much (%) it lowers FCFS's mean JCT, its tail
    as multiples of FCFS's, and whether that keeps the contract."""

    name: str
    parameters: tuple[float, ...]
    gain_percent: float
    p99: float
    p999: float
    keeps: bool


FCFS = (0.0, 0.0, 0.0, 1.0, 2.0, 1.0, 1.0)
"""Parameters with which ``tail.with_room`` is FCFS."""


def tuned(parameters: tuple[float, ...] = FCFS) -> Policy:
    """HEADROOM with these parameters."""
    return Policy("tuned", AtArrival(with_room, parameters))


def ladder(shadow: Shadow, predicted: FloatArray, slots: int) -> dict[str, tuple[float, ...]]:
    """The candidate orders by name, as parameters for ``tuned``."""
    return {
        f"head start {times:g}w, room {share:g}": shadow.room(times, share, predicted, slots)
        for times, share in product(HEADSTARTS, SHARES)
    }


def trials(
    requests: Requests, predicted: FloatArray, profile: Profile, server: Server,
    contract: Contract, serve: Callable[..., Completions] = simulate,
    earlier: deque[Shadow] | None = None,
) -> list[Trial]:  # fmt: skip
    """Replay these requests in every order: FCFS first, then by gain, the best first.

    Parameters
    ----------
    serve: ``simulate``, or another function with its parameters.
    earlier: what FCFS did with earlier traffic; this traffic is added. Candidates are then made
        from the average: the waits of a burst alone would make head starts too long afterwards.
    """
    fcfs = serve(requests, policy("fcfs"), profile, server, predicted)
    shadows = deque[Shadow]() if earlier is None else earlier
    shadows.append(Shadow.of(fcfs))
    average = Shadow(*np.mean(shadows, axis=0).tolist())
    before = fcfs.finished_at - requests.arrived_at
    limits = {name: float(np.quantile(before, level)) for name, level in LEVELS.items()}
    tried = []
    for name, parameters in ladder(average, predicted, server.slots).items():
        done = serve(requests, tuned(parameters), profile, server, predicted)
        after = done.finished_at - requests.arrived_at
        gain = 100 * (1 - float(after.mean() / before.mean()))
        p99, p999 = (float(np.quantile(after, LEVELS[q])) / limits[q] for q in LEVELS)
        keeps = all(_within(before, after, limits[q], getattr(contract, q)) for q in LEVELS)
        tried.append(Trial(name, parameters, gain, p99, p999, keeps))
    first = Trial("fcfs", FCFS, 0.0, 1.0, 1.0, True)
    return [first, *sorted(tried, key=lambda trial: -trial.gain_percent)]


def _within(before: FloatArray, after: FloatArray, limit: float, factor: float) -> bool:
    """Are surely no more requests above ``factor`` · FCFS's quantile than FCFS has above it?

    Surely, because among many candidates one would keep the contract by luck.
    """
    excess = (after > factor * limit).astype(np.float64) - (before > limit)
    means = np.array([block.mean() for block in np.array_split(excess, BLOCKS)])
    return bool(means.mean() + SURELY * means.std(ddof=1) / BLOCKS**0.5 <= 0)


def best(tried: Sequence[Trial]) -> Trial:
    """The trial of the best mean among those that keep the contract; FCFS if none gains."""
    kept = [trial for trial in tried if trial.keeps and trial.gain_percent > 0]
    return max(kept, key=lambda trial: trial.gain_percent, default=tried[0])


@dataclass(frozen=True)
class Tuner:
    """Chooses HEADROOM's parameters anew as requests finish; for ``simulate(…, tune=…)``.

    A request that has arrived and not finished is replayed with its predicted length. ``chosen``
    lists the trials chosen so far, ``shadows`` what FCFS did with the latest windows.
    """

    requests: Requests
    predicted: FloatArray
    profile: Profile
    server: Server
    contract: Contract
    window: int = WINDOW
    chosen: list[Trial] = field(default_factory=list)
    shadows: deque[Shadow] = field(default_factory=deque)

    def __call__(self, finished: IntArray, now: float) -> tuple[float, ...]:
        end = int(np.searchsorted(self.requests.arrived_at, now))
        rows = np.arange(max(0, end - self.window), end)
        if len(rows) < FEWEST:
            return FCFS
        lengths = np.maximum(np.rint(self.predicted), 1).astype(np.int64)
        lengths[finished] = self.requests.output_tokens[finished]
        recent = self.requests.take(rows)
        recent = Requests(
            recent.arrived_at - recent.arrived_at[0], recent.prompt_tokens, lengths[rows]
        )
        tried = trials(recent, self.predicted[rows], self.profile, self.server, self.contract,
                       earlier=self.shadows)  # fmt: skip
        self.chosen.append(best(tried))
        return self.chosen[-1].parameters
