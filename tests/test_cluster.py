"""A cluster is its replicas, each the plain per-step machine, and its router sees no future."""

import math
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from reference import COMING, LEAVING, Machine
from ssjf.errors import InputError
from ssjf.request import Requests
from ssjf.scheduler import AtArrival, Policy, policy
from ssjf.scheduler.routers import Router, known_routers, router
from ssjf.simulator.cluster import Replica, simulate_cluster
from ssjf.simulator.profile import PICOSECONDS, Profile
from ssjf.simulator.server import Memory, Server
from ssjf.simulator.simulate import simulate
from test_simulator_exact import (
    COUNTED,
    KINDS,
    Order,
    crowd,
    random_memory,
    random_profile,
    random_server,
)  # fmt: skip

CONFIGURATIONS = int(os.environ.get("SSJF_FUZZ", "2"))
DUE = policy("due")
POLICIES = {name: each for name, each in KINDS.items() if "asked" not in name} | {
    "due": (
        DUE,
        lambda order, job, now: DUE.score.function(
            order.arrived[job.i], order.predicted[job.i], job.made, now / PICOSECONDS,
            *DUE.score.parameters,
        ),
        {},
    )
}  # fmt: skip
ROUTERS = [name.replace("TOKENS", "12") for name in known_routers()]


class Plain(Machine):
    """The plain machine, run from arrival to arrival; ``shown`` is who ran in its last step."""

    def __init__(self, *args):
        super().__init__(*args)
        self.args, self.up, self.ended, self.blocked = args, True, None, False

    def make_way(self, job, wanted):
        made = super().make_way(job, wanted)
        self.blocked = not made and len(self.running) < self.server.slots
        return made

    def run(self, until):
        while self.now < until and (self.running or self.waiting):
            if self.ended is not None:  # it stands still until a copy ends
                if self.ended > until:
                    return
                self.wait(self.ended)
                self.ended = None
                continue
            self.end_copies()
            for job in self.waiting:
                self.order.promote(job, self.now)
            self.blocked = False
            self.schedule()
            self.check()
            if not self.tokens and not self.given_up:
                copies = [job.copied_at for job in self.jobs if job.place in (LEAVING, COMING)]
                self.ended = min(copies)
                continue
            self.shown = [(job, job.made) for job in self.running]
            self.before, self.was_blocked = self.now, self.blocked
            if self.tokens:
                if not self.memory.overlap:
                    self.wait(max(self.now, self.out.free_at, self.back.free_at))
                self.advance()
            self.blocked &= len(self.shown) == len(self.running)
            self.counts["steps"] += 1

    def take(self, i, now):
        if self.now < now:
            self.counts["stalled"] += (now - self.now) * (self.ended is not None)
            self.now = now
        self.ended = None
        self.waiting.append(self.jobs[i])

    def state(self, now):
        """(request, tokens made) of those that run and of those that wait; is memory short?"""
        waiting = [(job, job.made) for job in self.waiting]
        if self.now > now:
            return self.shown, waiting, self.was_blocked
        return [(job, job.made) for job in self.running], waiting, self.blocked

    def lost(self, now):
        """What goes down with it, and how many tokens that had; it is as new."""
        running, waiting, _ = self.state(now)
        had = running + waiting
        self.counts["busy"] -= max(self.now - now, 0) * bool(running)
        self.counts["steps"] -= self.now > now and bool(running)  # it is not ended
        counts, links = self.counts, (self.out, self.back)
        gone = {job.i for job, _ in had}
        done = [job for job in self.jobs if job.finished >= 0 and job.i not in gone]
        self.__init__(*self.args)
        self.counts, self.up = counts, False
        for job in done:
            self.jobs[job.i] = job
        for mine, before in zip((self.out, self.back), links, strict=True):
            mine.spans, mine.tokens = before.spans, before.tokens
        return [job.i for job, _ in had], sum(max(made - self.lead, 0) for _, made in had)


def uniform(seed, key, k):
    x, mask = seed, 2**64 - 1
    for part in (key, k):
        x = ((x ^ part) + 0x9E3779B97F4A7C15) & mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        x ^= x >> 31
    return (x >> 11) / 2**53


def start_of(left_running, before, free):
    """The level to which work fills slots, by its definition."""
    ends = sorted([0] * free + left_running)
    for j in range(1, len(ends) + 1):
        level = (sum(ends[:j]) + before) / j
        if j == len(ends) or level <= ends[j]:
            return level
    raise AssertionError


def seen(machine, k, machines, requests, tokens, i, now, seed, key):
    """What the router sees of replica k, from its definition."""
    running, waiting, blocked = machine.state(now)
    left = {job.i: max(tokens[job.i] + machine.lead - made, 1) for job, made in running + waiting}
    draws = {j: uniform(seed, key, j) for j, each in enumerate(machines) if each.up}
    step, sequence, *_ = machine.times
    order, mine = machine.order, machine.jobs[i]
    known = order.fixed
    before = [job for job, _ in waiting
              if not known or order.score(job, now) <= order.score(mine, now)]  # fmt: skip
    slots = machine.server.slots
    free = slots if not running else 0 if blocked else slots - len(running)
    return SimpleNamespace(
        replica=k, replicas=len(machines), slots=slots,
        step_seconds=(step + sequence * slots) / PICOSECONDS,
        prompt_tokens=requests.prompt_tokens[i], predicted_tokens=tokens[i], draw=draws[k],
        lot=min(sum(draw < draws[k] for draw in draws.values()), 2),
        running=len(running), waiting=len(waiting), work_tokens=sum(left.values()),
        kv_tokens=sum(job.prompt + made + left[job.i] for job, made in running + waiting),
        queued_tokens=sum(left[job.i] for job, _ in waiting),
        queued_prompt_tokens=sum(job.prompt for job, _ in waiting),
        start_tokens=start_of([left[job.i] for job, _ in running],
                              sum(left[job.i] for job in before), free),
    )  # fmt: skip


def plain_cluster(requests, ready, machines, down, chosen, tokens, keys, seed):
    """Where each request ends, its job there, and what was rerouted and lost."""
    n, last = len(requests), len(machines) - 1
    events = [(round(at * PICOSECONDS), 0, is_up, k) for k, spans in enumerate(down)
              for span in spans for is_up, at in enumerate(span)]  # fmt: skip
    events = sorted([*events, *((at, 1, i, 0) for i, at in enumerate(ready))])
    held, where, lost = [], [None] * n, [0, 0]
    while events:
        now, changes = events[0][0], [each for each in events if each[0] == events[0][0]]
        events = events[len(changes) :]
        for machine in machines:
            if machine.up:
                machine.run(now)
        for _, kind, is_up, k in changes:
            if kind == 0:
                machines[k].up = bool(is_up)
                if not is_up:
                    rows, made = machines[k].lost(now)
                    held += rows
                    lost = [lost[0] + len(rows), lost[1] + made]
                machines[k].now = now
        held.sort()
        for i in [*held, *(i for _, kind, i, _ in changes if kind == 1)]:
            up = [k for k in range(len(machines)) if machines[k].up]
            held = [] if up else sorted({*held, i})
            if up:
                first = sorted(up, key=lambda k: (k - last - 1) % len(machines))
                k = last = min(first, key=lambda k: chosen.score(
                    seen(machines[k], k, machines, requests, tokens, i, now, seed, keys[i])
                ))  # fmt: skip
                machines[k].take(i, now)
                where[i] = k
    for machine in machines:
        machine.run(math.inf)
    return where, [machines[k].jobs[i] for i, k in enumerate(where)], lost


def spans(rng, requests):
    """When a replica is down: never, or once or twice while there are requests."""
    end = float(requests.arrived_at[-1]) * 1.5 + 0.05
    times = np.unique(np.round(rng.uniform(0, end, 2 * int(rng.integers(0, 3))), 4)).tolist()
    times = times[: len(times) // 2 * 2]
    return tuple(zip(times[::2], times[1::2], strict=True))


def case(seed, kind, name, on_preemption, fails):
    rng = np.random.default_rng([seed, *map(ord, kind + name + on_preemption)])
    requests, first = crowd(rng), random_profile(rng)
    count = int(rng.integers(1, 5))
    longest = int((requests.prompt_tokens + requests.output_tokens).max()) + 3
    is_like = rng.random() < 0.5
    profiles = [first] + [
        first if is_like else replace(random_profile(rng), start_up_steps=first.start_up_steps)
        for _ in range(count - 1)
    ]
    servers = [random_server(rng, longest)] * count if is_like else [
        random_server(rng, longest) for _ in range(count)
    ]  # fmt: skip
    memory = random_memory(rng, on_preemption, None, longest)
    down = [spans(rng, requests) if fails else () for _ in range(count)]
    delay = float(rng.choice([0.0, 0.01]))
    ready = np.rint((requests.arrived_at + delay) * PICOSECONDS).astype(np.int64).tolist()
    chosen, score, options = POLICIES[kind]
    predicted = requests.predictions["p"]
    prefixes = rng.integers(0, 5, len(requests))
    keys = np.unique(prefixes, return_inverse=True)[1] if name == "affinity" else range(99)
    machines = []
    for profile, server in zip(profiles, servers, strict=True):
        order = Order(requests, ready, profile, score, **options)
        order.fixed = chosen.in_time == "constant"
        machines.append(Plain(
            ready, requests.prompt_tokens.tolist(), requests.output_tokens.tolist(), order,
            chosen.preempts, profile, server, memory,
        ))  # fmt: skip
    tokens = np.maximum(np.rint(predicted), 1).astype(int).tolist()
    if not router(name).uses_prediction:
        tokens = [0] * len(requests)
    expected = plain_cluster(requests, ready, machines, down, router(name), tokens,
                             [*map(int, keys)], seed)  # fmt: skip
    found = simulate_cluster(
        requests, chosen, [*map(Replica, profiles, servers, down)], router(name), predicted, delay,
        memory, prefixes, seed, bool(rng.random() < 0.5),
    )  # fmt: skip
    return machines, expected, found


def assert_same(machines, expected, found, what):
    where, jobs, (rerouted, lost) = expected
    assert found.replica.tolist() == where, what
    for ours, theirs in (("scheduled_at", "scheduled"), ("first_token_at", "first"),
                         ("finished_at", "finished"), ("swapped_seconds", "swapped")):  # fmt: skip
        times = np.array([getattr(job, theirs) for job in jobs]) / PICOSECONDS
        assert (getattr(found, ours) == times).all(), (what, ours)
    assert found.preemptions.tolist() == [job.preempted for job in jobs], what
    assert (found.counters["rerouted"], found.counters["lost_tokens"]) == (rerouted, lost), what
    for name in COUNTED:
        assert found.counters[name] == sum(each.counts[name] for each in machines), (what, name)
    for ours, theirs in (("busy_seconds", "busy"), ("stall_seconds", "stalled")):
        total = sum(each.counts[theirs] for each in machines) / PICOSECONDS
        assert found.counters[ours] == pytest.approx(total, abs=1e-9), (what, ours)


@pytest.mark.parametrize("name", ROUTERS)
@pytest.mark.parametrize("fails", [False, True])
def test_a_cluster_is_the_plain_one(name, fails):
    replicas, preemptions, rerouted = set(), 0, 0
    for kind in POLICIES:
        for on_preemption in ("recompute", "swap", "defer"):
            for seed in range(CONFIGURATIONS):
                what = (seed, kind, name, on_preemption, fails)
                machines, expected, found = case(*what)
                assert_same(machines, expected, found, what)
                replicas |= {len(machines)}
                preemptions += found.counters["preemptions"]
                rerouted += found.counters["rerouted"]
    assert replicas == {1, 2, 3, 4} and preemptions > 50 and (rerouted > 50) == fails


MODEL, SERVER = Profile("m", 0.01, 1e-3, 1e-6, 1e-4), Server(4, kv_tokens=400)
SHORT = Memory("swap", host_tokens=500, bytes_per_token=1.0, out_bytes_per_second=1e5)


def traffic(n, rate, seed=0):
    rng = np.random.default_rng(seed)
    output = np.ceil(rng.lognormal(2.5, 1.0, n)).clip(1, 300).astype(int)
    predicted = {"p": output * rng.lognormal(0, 0.5, n)}
    return Requests(
        rng.exponential(1 / rate, n).cumsum(), rng.integers(1, 60, n), output, predicted
    )


@pytest.mark.parametrize("name", ROUTERS)
def test_a_cluster_of_one_is_the_machine_bit_for_bit(name):
    requests = traffic(400, 12)
    predicted = requests.predictions["p"]
    for kind, (chosen, *_) in POLICIES.items():
        for memory in (None, SHORT, Memory("defer")):
            one = simulate(requests, chosen, MODEL, SERVER, predicted, 0.01, memory)
            found = simulate_cluster(requests, chosen, [Replica(MODEL, SERVER)], router(name),
                                     predicted, 0.01, memory, np.arange(400) % 7)  # fmt: skip
            for column in ("scheduled_at", "first_token_at", "finished_at", "preemptions",
                           "swapped_seconds"):  # fmt: skip
                same = getattr(one, column) == getattr(found, column)
                assert same.all(), (kind, memory, column)
            assert one.counters.items() <= found.counters.items(), (kind, memory)


@pytest.mark.parametrize("name", ["round-robin", "random", "affinity"])
def test_a_router_that_sees_nothing_splits_the_requests(name):
    requests = traffic(2000, 40)
    prefixes = np.arange(2000) % 50
    found = simulate_cluster(requests, policy("ssjf"), [Replica(MODEL, SERVER)] * 3, router(name),
                             requests.predictions["p"], prefixes=prefixes, seed=3)  # fmt: skip
    for k in range(3):
        rows = np.flatnonzero(found.replica == k)
        part = requests.take(rows)
        alone = simulate(part, policy("ssjf"), MODEL, SERVER, part.predictions["p"])
        assert (alone.finished_at == found.finished_at[rows]).all() and len(rows) > 300
    if name == "round-robin":
        assert (found.replica == np.arange(2000) % 3).all()
    if name == "affinity":
        assert len({*zip(prefixes.tolist(), found.replica.tolist(), strict=True)}) == 50
    if name == "random":
        again = simulate_cluster(requests, policy("ssjf"), [Replica(MODEL, SERVER)] * 3,
                                 router(name), requests.predictions["p"], seed=4)  # fmt: skip
        assert 0.5 < (again.replica != found.replica).mean() < 0.8


@pytest.mark.parametrize("name", ["jsq", "least-work"])
def test_a_key_made_at_arrival_is_of_what_its_replica_has_then(name):
    """The keys are made again from what the run says of itself, and served as fixed ones."""
    requests = traffic(600, 40)
    predicted, arrived = requests.predictions["p"], requests.arrived_at
    replicas = [Replica(MODEL, SERVER)] * 3

    def key(arrived, predicted, there, tokens):
        return arrived + 0.05 * predicted / (1 + there) + 1e-4 * tokens

    chosen = Policy("key", AtArrival(key))
    done = simulate_cluster(requests, chosen, replicas, router(name), predicted)
    keys = np.empty(len(requests))
    for i in range(len(requests)):
        there = (done.replica[:i] == done.replica[i]) & (done.finished_at[:i] > arrived[i])
        keys[i] = key(arrived[i], predicted[i], there.sum(), predicted[:i][there].sum())
    fixed = Policy("fixed", lambda queue, now: keys, "constant")
    again = simulate_cluster(requests, fixed, replicas, router(name), predicted)
    assert (again.finished_at == done.finished_at).all() and len(set(done.replica)) == 3
    plain = simulate_cluster(requests, policy("fcfs"), replicas, router(name), predicted)
    assert (plain.finished_at != done.finished_at).any()


def test_requests_wait_while_all_are_down_and_come_again_as_new():
    model, server = Profile("one", 1.0), Server(1)
    requests = Requests(np.array([0.0, 0.5, 2.5, 6.0]), np.full(4, 1), np.full(4, 3))
    replicas = [
        Replica(model, server, ((2.0, 4.0), (20.0, 21.0))),
        Replica(model, server, ((1.0, 5.0),)),
    ]
    found = simulate_cluster(requests, policy("fcfs"), replicas, router("jsq"))
    # Both are lost, one with two tokens, and come back to replica 0 with the third.
    assert found.replica.tolist() == [0, 0, 0, 1]
    assert found.finished_at.tolist() == [7.0, 10.0, 13.0, 9.0]
    assert (found.counters["rerouted"], found.counters["lost_tokens"]) == (3, 2)
    assert found.counters["busy_seconds"] == 2 + 0.5 + 9 + 3


def test_a_users_own_router_sees_what_it_asks_for():
    requests = traffic(300, 20)
    mine = Router("last", lambda seen: -seen.replica, "nothing")
    found = simulate_cluster(requests, policy("fcfs"), [Replica(MODEL, SERVER)] * 3, mine)
    assert (found.replica == 2).all()
    wrong = Router("wrong", lambda seen: seen.patience)
    with pytest.raises(InputError, match="cannot be compiled: nothing is called 'patience'"):
        simulate_cluster(requests, policy("fcfs"), [Replica(MODEL, SERVER)], wrong)
    with pytest.raises(InputError, match="known: counts, lengths, nothing, starts"):
        Router("mine", lambda seen: 0.0, "everything")


@pytest.mark.parametrize(("name", "says"), [
    ("jqs", "unknown router 'jqs'; known: affinity, "), ("two-pool", "not a finite number"),
    ("two-pool:-3", "'-3' is not a finite number of tokens"), ("jsq:2", "unknown router"),
])  # fmt: skip
def test_an_unknown_router_is_told_which_there_are(name, says):
    with pytest.raises(InputError, match=says):
        router(name)


def test_what_a_cluster_cannot_serve_is_refused():
    requests = traffic(10, 1)
    one = [Replica(MODEL, SERVER)]
    asked = Policy("mine", lambda queue, now: queue.arrived_at)
    slow = Replica(Profile("slow", 0.1, start_up_steps=2), SERVER)
    for args, options, says in [
        (("fcfs", [], "jsq"), {}, "at least one replica"),
        ((asked, one, "jsq"), {}, "must be 'constant' or 'linear'"),
        (("fcfs", [*one, slow], "jsq"), {}, "same start_up_steps"),
        (("fcfs", one, "jsq"), {"memory": Memory("ewt", host_tokens=500)}, "'recompute', 'swap'"),
        (("fcfs", one, "least-work"), {}, "router least-work needs predicted lengths"),
        (("fcfs", one, "affinity"), {}, "needs a column of prefixes"),
    ]:
        order, replicas, name = args
        chosen = policy(order) if isinstance(order, str) else order
        with pytest.raises(InputError, match=says):
            simulate_cluster(requests, chosen, replicas, router(name), **options)
    with pytest.raises(InputError, match="one after the other"):
        Replica(MODEL, SERVER, ((3.0, 2.0),))
