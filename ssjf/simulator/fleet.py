"""The arrays of a cluster, and what happens when a replica goes down or returns."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from ssjf.errors import InputError
from ssjf.request import IntArray, Requests
from ssjf.scheduler.routers import SEEN, Router
from ssjf.simulator.core import state
from ssjf.simulator.profile import PICOSECONDS, Profile
from ssjf.simulator.server import Server
from ssjf.simulator.simulate import SimulatedCompletions, check_end, counted


@dataclass(frozen=True)
class Replica:
    """A machine of a cluster; ``down``: spans (from, to) in seconds in which it is down."""

    profile: Profile
    server: Server
    down: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        times = [time for span in self.down for time in span]
        if times != sorted({*times}) or not all(0 <= time < 1e6 for time in times):
            raise InputError(f"down is {self.down}; spans must be (from, to), one after the other, "
                             "in seconds from 0 to below 1e6")  # fmt: skip


@dataclass(frozen=True)
class ClusterCompletions(SimulatedCompletions):
    """``SimulatedCompletions``; times and preemptions are those on the last ``replica`` of each
    request, shape (n,).

    ``counters``: sums over the replicas, of ``most_…`` the maximum; ``rerouted``, the requests lost
    by replicas that went down, and ``lost_tokens``, the tokens that these had generated.
    """

    replica: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))


class Fleet:
    """Replicas as ``core.fleet`` runs them: ``serve``, then ``completions``."""

    def __init__(self, replicas, machines, router: Router, memory, n, lengths, prefixes, seed):
        from ssjf.simulator.core import fleet, setting
        from ssjf.simulator.core.compiled import native_of

        self.core, self.replicas, self.memory = fleet, replicas, memory
        self.kept = machines  # alive, since ``m.parameters`` points into them
        self.m = np.concatenate([machine[0] for machine in machines])
        self.m["next_ready"] = self.m["same_until"] = state.NEVER
        sees = list(SEEN).index(router.sees)
        self.m["listed"] |= sees >= fleet.LENGTHS
        _, self.records, self.extra, tables, self.times, _ = machines[0]
        self.times[state.FINISHED_AT] = 0
        self.tables = np.empty((len(machines), *tables.shape), state.ENTRY)
        self.tables["key"][:, state.LEVELS] = tables["key"][state.LEVELS]
        cells = [machine[5] for machine in machines]
        self.cells = np.zeros((len(cells), max(map(len, cells))), np.int64)
        for row, start in zip(self.cells, cells, strict=True):
            row[: len(start)] = start
        self.shared = self.records, self.extra, self.tables, self.times, self.cells
        self.seen = _seen(replicas)
        self.tokens = np.zeros(n, np.int64)
        if lengths is not None:
            self.tokens[:] = np.clip(np.rint(lengths), 1, setting.MOST_TOKENS)
        self.keys = np.arange(n)
        if router.by_prefix:
            self.keys = np.unique(np.asarray(prefixes), return_inverse=True)[1].astype(np.int64)
        self.replica = np.full(n, -1)
        self.ends = np.empty((1, int(self.m["slots"].max())), state.ENTRY)
        address = native_of(router.score, self.seen.dtype).address
        self.routing = np.array([(address, sees, len(machines) - 1, seed)], fleet.ROUTING)
        if any(replica.down for replica in replicas):
            arrays = (self.m, self.records, self.extra, self.cells)
            self.fresh = [array.copy() for array in arrays]
        self.rerouted = self.lost_tokens = 0

    def serve(self) -> None:
        """Serve all requests, from one change of the replicas that are up to the next."""
        ready, first, held = self.times[state.READY], 0, np.zeros(0, np.int64)
        events = sorted((round(at * PICOSECONDS), k, is_up)
                        for k, replica in enumerate(self.replicas)
                        for span in replica.down for is_up, at in enumerate(span))  # fmt: skip
        for now, changes in groupby(events, lambda event: event[0]):
            last = int(np.searchsorted(ready, now))
            rows, first = np.arange(first, last), last
            held = self.route(np.concatenate([held, rows]), 0)
            self.advance(now)
            lost = [held]
            for _, k, is_up in changes:
                self.seen["up"][k] = is_up
                if is_up:
                    self.m[k]["now"] = now
                else:
                    lost.append(self.lose(k, now))
            held = self.route(np.sort(np.concatenate(lost)), now)
        self.route(np.concatenate([held, np.arange(first, len(ready))]), 0)
        self.advance(int(state.NEVER))

    def route(self, rows: IntArray, earliest: int) -> IntArray:
        """Route these requests, none before ``earliest``; returns them if no replica is up."""
        if not self.seen["up"].any():
            return rows
        more = (self.tokens, self.keys, self.replica, self.ends, self.routing)
        ended = self.core.route(self.m, self.seen, *self.shared, *more, rows, earliest)
        check_end(ended, self.memory)
        return rows[:0]

    def advance(self, until: int) -> None:
        """Run every replica that is up until this time."""
        check_end(self.core.advance(self.m, self.seen, *self.shared, until), self.memory)

    def lose(self, k: int, now: int) -> IntArray:
        """Reset replica k, which goes down, and its unfinished requests; returns their rows."""
        m, (fresh, records, extra, cells) = self.m[k], self.fresh
        rows = np.flatnonzero((self.replica == k) & (self.times[state.FINISHED_AT] == 0))
        lost = self.records[rows]
        made = lost["generated"] + np.where(lost["since"] > 0, m["step"] - lost["since"], 0)
        self.lost_tokens += int(np.maximum(made - m["lead"], 0).sum())
        self.rerouted += len(rows)
        if m["under_way"]:
            m["busy"] -= m["now"] - now
        kept = ("now", "step", "least_free", "least_host_free", *state.COUNTS, *state.TIMES)
        values = [m[name] for name in kept]
        self.m[k] = fresh[k]
        for name, value in zip(kept, values, strict=True):
            m[name] = value
        self.records[rows], self.extra[rows], self.cells[k] = records[rows], extra[rows], cells[k]
        self.replica[rows] = -1
        return rows

    def completions(self, requests: Requests) -> ClusterCompletions:
        parts = [counted(m) for m in self.m]
        counters = {name: (max if name.startswith("most_") else sum)(part[name] for part in parts)
                    for name in parts[0]}  # fmt: skip
        counters |= {"rerouted": self.rerouted, "lost_tokens": self.lost_tokens}
        scheduled_at, first_token_at, finished_at = self.times[1:] / PICOSECONDS
        preempted, swapped = self.records["preempted"].astype(np.int64), self.extra["swapped"]
        return ClusterCompletions(
            requests, scheduled_at, first_token_at, finished_at, preempted, counters,
            swapped / PICOSECONDS, self.replica,
        )  # fmt: skip


def _seen(replicas: Sequence[Replica]) -> np.ndarray:
    """What a router may see of each replica, and whether it is up."""
    fields = [(name, np.float64) for names in SEEN.values() for name in names]
    seen = np.zeros(len(replicas), np.dtype([*fields, ("up", np.int64)], align=True))
    seen["replica"], seen["replicas"], seen["up"] = np.arange(len(replicas)), len(replicas), 1
    for row, replica in zip(seen, replicas, strict=True):
        step, sequence, *_ = replica.profile.picoseconds()
        row["slots"] = replica.server.slots
        row["step_seconds"] = (step + sequence * replica.server.slots) / PICOSECONDS
    return seen
