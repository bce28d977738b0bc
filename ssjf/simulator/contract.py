"""The contract tuner: of some orders the one of best mean JCT that keeps a stated tail.

Recent traffic is replayed in the simulator first come, first served, and in each order. What
counts is the difference to FCFS on the same requests, not the tail itself.
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
from ssjf.scheduler import AtArrival, Moving, Policy, policy
from ssjf.scheduler.tail import either, with_room
from ssjf.simulator.profile import Profile
from ssjf.simulator.server import Server
from ssjf.simulator.simulate import simulate

HEADSTARTS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)  # in FCFS's mean waits of those that wait
SHARES = (0.0, 0.3, 0.8)  # of the room, in HEADROOM
SHORTEST, LONGEST = 0.01, 0.8  # quantiles of the predictions; beyond, one counts as that
DUES = (1.0, 3.0, 10.0, 100.0)
WINDOW, EVERY = 20_000, 10_000  # requests that are replayed, and after which they are
MEMORY = 100_000  # requests over whose replays FCFS's waits are averaged
FEWEST = 1_000  # requests in a window
BLOCKS = 30  # consecutive stretches whose differences are independent, more or less
SURELY = 0.5  # standard errors


@dataclass(frozen=True)
class Contract:
    """So many times as large as FCFS's the tail of the JCT may be: at p99, and at p99.9."""

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
        """From ``p99=1.05,p999=1.10``."""
        given = {}
        for part in text.split(","):
            name, _, value = part.partition("=")
            if name not in cls.__dataclass_fields__:
                raise InputError(f"contract {text!r}: unknown quantile {name!r}; known: p99, p999")
            try:
                given[name] = float(value)
            except ValueError:
                raise InputError(f"contract {text!r}: {value!r} is not a number") from None
        return cls(**given)


LEVELS = {"p99": 0.99, "p999": 0.999}


class Shadow(NamedTuple):
    """What FCFS does with some traffic, in seconds: the mean wait of those that wait, the p99 of
    the JCT, what a token takes, and the p99 of the wait."""

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
        """Parameters of HEADROOM: a head start of so many mean waits, and a share of the room."""
        shortest, longest = np.quantile(predicted, [SHORTEST, LONGEST]).tolist()
        shortest = max(shortest, 1.0)
        longest = max(longest, 2 * shortest)  # all may be alike
        return times * self.wait, share, self.tail_wait, shortest, longest, self.token, float(slots)


class Trial(NamedTuple):
    """An order, replayed: the parameters of its score, by how much (%) it lowers FCFS's mean JCT,
    its tail as multiples of FCFS's, and whether that keeps the contract."""

    name: str
    parameters: tuple[float, ...]
    gain_percent: float
    p99: float
    p999: float
    keeps: bool


FCFS = {False: (0.0, 0.0, 0.0, 1.0, 2.0, 1.0, 1.0), True: (0.0, -1.0, 1.0, 1.0, 1.0, 1.0)}
"""Parameters that make ``tail.with_room`` FCFS and, where the order ``moves``, ``tail.either``."""


def tuned(parameters: tuple[float, ...] | None = None, moves: bool = False) -> Policy:
    """The order of these parameters (FCFS's by default): of a key made at arrival or, if it
    ``moves``, of a score that does."""
    parameters = parameters or FCFS[moves]
    return Policy(
        "tuned", Moving(either, parameters) if moves else AtArrival(with_room, parameters)
    )


def ladder(
    shadow: Shadow, predicted: FloatArray, slots: int, moves: bool
) -> dict[str, tuple[float, ...]]:
    """The orders that are tried, by name, as parameters for ``tuned``."""
    if not moves:
        return {
            f"head start {times:g}w, room {share:g}": shadow.room(times, share, predicted, slots)
            for times, share in product(HEADSTARTS, SHARES)
        }
    longest = float(np.quantile(predicted, LONGEST))
    rest = (max(shadow.wait, 1e-6), shadow.tail, shadow.token, longest)
    orders: dict[str, tuple[float, ...]] = {
        f"head start {times:g}w": (times * shadow.wait, -1.0, *rest) for times in HEADSTARTS
    }
    orders |= {f"due {weight:g}": (0.0, weight, *rest) for weight in DUES}
    return orders | {"ssjf": (0.0, 0.0, *rest)}


def trials(
    requests: Requests, predicted: FloatArray, profile: Profile, server: Server,
    contract: Contract, moves: bool = False, serve: Callable[..., Completions] = simulate,
    earlier: deque[Shadow] | None = None,
) -> list[Trial]:  # fmt: skip
    """Every order of the ladder on these requests, FCFS first, then by gain, the best first.

    Parameters
    ----------
    serve: one machine, or another that is called like it.
    earlier: what FCFS did with earlier traffic, to which this is added. The ladder is then in the
        waits of all that: those of a burst would make head starts too long for what comes after.
    """
    fcfs = serve(requests, policy("fcfs"), profile, server, predicted)
    seen = deque(maxlen=1) if earlier is None else earlier
    seen.append(Shadow.of(fcfs))
    usual = Shadow(*np.mean(seen, axis=0).tolist())
    before = fcfs.finished_at - requests.arrived_at
    limits = {name: float(np.quantile(before, level)) for name, level in LEVELS.items()}
    tried = []
    orders = ladder(usual, predicted, server.slots, moves)
    for name, parameters in orders.items():
        done = serve(requests, tuned(parameters, moves), profile, server, predicted)
        after = done.finished_at - requests.arrived_at
        keeps = all(
            _within(before, after, limits[each], getattr(contract, each)) for each in LEVELS
        )
        ratios = {each: float(np.quantile(after, level)) / limits[each]
                  for each, level in LEVELS.items()}  # fmt: skip
        gain = 100 * (1 - float(after.mean() / before.mean()))
        tried.append(Trial(name, parameters, gain, **ratios, keeps=keeps))
    first = Trial("fcfs", FCFS[moves], 0.0, 1.0, 1.0, True)
    return [first, *sorted(tried, key=lambda each: -each.gain_percent)]


def _within(before: FloatArray, after: FloatArray, limit: float, factor: float) -> bool:
    """Are surely no more beyond ``factor`` · FCFS's quantile than FCFS has beyond it? Of many
    orders that are tried one would keep it by luck."""
    more = (after > factor * limit).astype(np.float64) - (before > limit)
    means = np.array([part.mean() for part in np.array_split(more, BLOCKS)])
    return bool(means.mean() + SURELY * means.std(ddof=1) / BLOCKS**0.5 <= 0)


def best(tried: Sequence[Trial]) -> Trial:
    """The best mean of those that keep the contract; FCFS, the first, does."""
    kept = [each for each in tried if each.keeps and each.gain_percent > 0]
    return max(kept, key=lambda each: each.gain_percent, default=tried[0])


@dataclass(frozen=True)
class Tuner:
    """Chooses anew as requests finish; for ``simulate(…, tune=…)``.

    What has arrived and not finished is replayed with its predicted length. ``chosen`` are the
    trials that it chose, in turn, ``shadows`` what FCFS did with the latest windows.
    """

    requests: Requests
    predicted: FloatArray
    profile: Profile
    server: Server
    contract: Contract
    moves: bool = False
    window: int = WINDOW
    chosen: list[Trial] = field(default_factory=list)
    shadows: deque[Shadow] = field(default_factory=deque)

    def __call__(self, finished: IntArray, now: float) -> tuple[float, ...]:
        end = int(np.searchsorted(self.requests.arrived_at, now))
        rows = np.arange(max(0, end - self.window), end)
        if len(rows) < FEWEST:
            return FCFS[self.moves]
        known = np.zeros(len(self.requests), bool)
        known[finished] = True
        recent = self.requests.take(rows)
        guessed = np.maximum(np.rint(self.predicted[rows]), 1).astype(np.int64)
        lengths = np.where(known[rows], recent.output_tokens, guessed)
        recent = Requests(recent.arrived_at - recent.arrived_at[0], recent.prompt_tokens, lengths)
        tried = trials(recent, self.predicted[rows], self.profile, self.server, self.contract,
                       self.moves, earlier=self.shadows)  # fmt: skip
        self.chosen.append(best(tried))
        return self.chosen[-1].parameters
