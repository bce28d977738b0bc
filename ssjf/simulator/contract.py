"""The contract tuner: of some orders the one of best mean JCT that keeps a stated tail.

Recent traffic is replayed in the simulator first come, first served, and in each order. What
counts is the difference to FCFS on the same requests, not the tail itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np

from ssjf.errors import InputError
from ssjf.request import Completions, FloatArray, IntArray, Requests
from ssjf.scheduler import Moving, Policy, policy
from ssjf.scheduler.tail import either
from ssjf.simulator.profile import Profile
from ssjf.simulator.server import Server
from ssjf.simulator.simulate import simulate

HEADSTARTS = (0.25, 0.5, 1.0, 2.0, 4.0)  # in units of FCFS's mean wait of those that wait
LONGEST = 0.8  # quantile of the predictions, beyond which HEADSTART counts them as that
DUES = (1.0, 3.0, 10.0, 100.0)
WINDOW, EVERY = 20_000, 10_000  # requests that are replayed, and after which they are
BLOCKS = 30  # consecutive stretches whose differences are independent, more or less
FEWEST = 1_000  # requests in a window


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
    the JCT, and what a token takes."""

    wait: float
    tail: float
    token: float

    @classmethod
    def of(cls, fcfs: Completions) -> Self:
        waits = fcfs.scheduled_at - fcfs.requests.arrived_at
        waited = waits[waits > 0]
        served = fcfs.finished_at - fcfs.scheduled_at
        return cls(
            float(waited.mean()) if len(waited) else 0.0,
            float(np.quantile(fcfs.finished_at - fcfs.requests.arrived_at, 0.99)),
            float(served.sum() / fcfs.requests.output_tokens.sum()),
        )


class Trial(NamedTuple):
    """An order, replayed: parameters of ``tail.either``, by how much (%) it lowers FCFS's mean JCT,
    its tail as multiples of FCFS's, and whether that keeps the contract."""

    name: str
    parameters: tuple[float, ...]
    gain_percent: float
    p99: float
    p999: float
    keeps: bool


FCFS = (0.0, -1.0, 1.0, 1.0, 1.0, 1.0)
"""Parameters of ``tail.either``."""


def tuned(parameters: tuple[float, ...] = FCFS) -> Policy:
    """The order of these parameters of ``tail.either`` (FCFS's by default)."""
    return Policy("tuned", Moving(either, parameters))


def ladder(shadow: Shadow, longest: float, moves: bool) -> dict[str, tuple[float, ...]]:
    """The orders that are tried, by name; ``moves``: those that no static key can express too."""
    rest = (max(shadow.wait, 1e-6), shadow.tail, shadow.token, longest)
    orders: dict[str, tuple[float, ...]] = {
        f"headstart {m:g}w": (m * shadow.wait, -1.0, *rest) for m in HEADSTARTS
    }
    if moves:
        orders |= {f"due {weight:g}": (0.0, weight, *rest) for weight in DUES}
        orders |= {"ssjf": (0.0, 0.0, *rest)}
    return orders


def trials(
    requests: Requests, predicted: FloatArray, profile: Profile, server: Server,
    contract: Contract, moves: bool = True, surely: float = 0.0, longest: float = LONGEST,
) -> list[Trial]:  # fmt: skip
    """Every order of the ladder on these requests, FCFS first, then by gain, the best first.

    ``surely``: how many standard errors a tail must be within the contract by. ``longest``: as
    ``LONGEST``.
    """
    fcfs = simulate(requests, policy("fcfs"), profile, server)
    before = fcfs.finished_at - requests.arrived_at
    limits = {name: float(np.quantile(before, level)) for name, level in LEVELS.items()}
    tried = []
    most = float(np.quantile(predicted, longest))
    for name, parameters in ladder(Shadow.of(fcfs), most, moves).items():
        order = tuned(parameters)
        if parameters[1] < 0:  # a static key is faster
            order = policy(f"headstart:{parameters[0]!r},{most!r}")
        done = simulate(requests, order, profile, server, predicted)
        after = done.finished_at - requests.arrived_at
        keeps = all(
            _within(before, after, limits[each], getattr(contract, each), surely) for each in LEVELS
        )
        ratios = {each: float(np.quantile(after, level)) / limits[each]
                  for each, level in LEVELS.items()}  # fmt: skip
        gain = 100 * (1 - float(after.mean() / before.mean()))
        tried.append(Trial(name, parameters, gain, **ratios, keeps=keeps))
    first = Trial("fcfs", FCFS, 0.0, 1.0, 1.0, True)
    return [first, *sorted(tried, key=lambda each: -each.gain_percent)]


def _within(
    before: FloatArray, after: FloatArray, limit: float, factor: float, surely: float
) -> bool:
    """Are no more beyond ``factor`` · FCFS's quantile than FCFS has beyond it?"""
    more = (after > factor * limit).astype(np.float64) - (before > limit)
    means = np.array([part.mean() for part in np.array_split(more, BLOCKS)])
    return bool(means.mean() + surely * means.std(ddof=1) / BLOCKS**0.5 <= 0)


def best(tried: Sequence[Trial]) -> Trial:
    """The best mean of those that keep the contract; FCFS, the first, does."""
    kept = [each for each in tried if each.keeps and each.gain_percent > 0]
    return max(kept, key=lambda each: each.gain_percent, default=tried[0])


@dataclass(frozen=True)
class Tuner:
    """Chooses anew as requests finish; for ``simulate(…, tune=…)``.

    What has arrived and not finished is replayed with its predicted length. ``chosen`` are the
    trials that it chose, in turn.
    """

    requests: Requests
    predicted: FloatArray
    profile: Profile
    server: Server
    contract: Contract
    moves: bool = True
    surely: float = 0.0
    longest: float = LONGEST
    window: int = WINDOW
    chosen: list[Trial] = field(default_factory=list)

    def __call__(self, finished: IntArray, now: float) -> tuple[float, ...]:
        end = int(np.searchsorted(self.requests.arrived_at, now))
        rows = np.arange(max(0, end - self.window), end)
        if len(rows) < FEWEST:
            return FCFS
        known = np.zeros(len(self.requests), bool)
        known[finished] = True
        recent = self.requests.take(rows)
        guessed = np.maximum(np.rint(self.predicted[rows]), 1).astype(np.int64)
        lengths = np.where(known[rows], recent.output_tokens, guessed)
        recent = Requests(recent.arrived_at - recent.arrived_at[0], recent.prompt_tokens, lengths)
        tried = trials(recent, self.predicted[rows], self.profile, self.server, self.contract,
                       self.moves, self.surely, self.longest)  # fmt: skip
        self.chosen.append(best(tried))
        return self.chosen[-1].parameters
