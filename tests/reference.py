"""A plain reference of the machine with two tiers of KV memory: lists and nothing clever.

Every step it touches every request, and recomputes from them what is in use: nothing is kept
that could drift. It checks the laws of conservation as it goes. Times are picoseconds.
"""

from collections import Counter
from types import SimpleNamespace

NOWHERE, DEVICE, LEAVING, HOST, COMING = "nowhere", "device", "leaving", "host", "coming"


class Link:
    """One direction: copies one after another."""

    def __init__(self, latency, per_token):
        self.latency, self.per_token = latency, per_token
        self.free_at = 0
        self.spans, self.tokens = [], 0

    def copy(self, job, now):
        starts = max(now, self.free_at)
        self.free_at = job.copied_at = starts + self.seconds(job)
        self.spans.append((starts, self.free_at))
        self.tokens += job.kv

    def seconds(self, job):
        return self.latency + job.kv * self.per_token


class Machine:
    """``order`` scores and promotes; see ``test_tiered_exact``. ``preempts``: by priority."""

    def __init__(self, ready, prompt, output, order, preempts, profile, server, memory):
        self.times, self.lead = profile.picoseconds(), profile.start_up_steps
        self.order, self.preempts, self.server, self.memory = order, preempts, server, memory
        self.jobs = [
            SimpleNamespace(
                i=i, prompt=p, total=o + self.lead, made=0, kv=0, blocks=0, place=NOWHERE,
                prefilling=True, scheduled=-1, first=-1, finished=-1, preempted=0, swapped=0,
                copied_at=0, left_at=0, promoted=False,
            )
            for i, (p, o) in enumerate(zip(prompt, output, strict=True))
        ]  # fmt: skip
        self.ready, self.now, self.arrived = ready, 0, 0
        self.waiting, self.running = [], []
        per_token = memory.token_picoseconds()
        latency = round(memory.latency_seconds * 10**12)
        self.out, self.back = (Link(latency, each) for each in per_token)
        self.host_blocks = memory.host_capacity_tokens // server.block_tokens
        self.ahead = round(memory.ahead_seconds * 10**12)
        self.counts = Counter()
        self.computed = 0
        self.clear()

    # What is in use, counted anew each time.

    def blocks(self, tokens):
        return -(-tokens // self.server.block_tokens)

    def free(self):
        return self.server.blocks - sum(job.blocks for job in self.jobs)

    def leaving(self):
        return sum(job.blocks for job in self.jobs if job.place == LEAVING)

    def host_free(self):
        held = sum(self.blocks(j.kv) for j in self.jobs if j.place in (LEAVING, HOST, COMING))
        return self.host_blocks - held

    def residents(self):
        return [job for job in self.waiting if job.place == DEVICE]

    def on_device(self):
        return [job for job in self.running if job.place == DEVICE]

    def budget(self):
        return self.server.token_budget - sum(self.tokens.values())

    def key(self, job):
        score = self.order.victim if job in self.running else self.order.score
        return score(job, self.now), job.i

    def reserved(self, job):
        if self.memory.reserve == "none":
            return 0
        if self.memory.reserve == "maximum":
            return self.memory.maximum_tokens
        return job.prompt + job.total - 1

    # Moves.

    def clear(self):
        self.tokens, self.claimed, self.paused, self.given_up = {}, 0, 0, 0

    def park(self, job):
        self.running.remove(job)
        self.tokens.pop(job.i, None)
        job.blocks = self.blocks(job.kv)
        job.preempted += 1
        self.given_up += 1
        self.counts["preemptions"] += 1
        self.waiting.append(job)
        if self.memory.on_preemption == "recompute":
            self.drop(job)

    def drop(self, job):
        self.counts["recomputed_tokens"] += job.kv
        job.kv = job.blocks = 0
        job.prefilling, job.place = True, NOWHERE

    def evict(self, job):
        if self.blocks(job.kv) > self.host_free():
            self.counts["dropped_for_full_host"] += 1
            self.drop(job)
            return
        job.place, job.left_at = LEAVING, self.now
        self.counts["swaps_out"] += 1
        self.out.copy(job, self.now)

    def bring_back(self, job):
        job.blocks, job.place = self.blocks(job.kv), COMING
        self.counts["swaps_in"] += 1
        self.back.copy(job, self.now)

    def end_copies(self):
        for job in self.jobs:
            if job.place == LEAVING and job.copied_at <= self.now:
                job.blocks, job.place = 0, HOST
            if job.place == COMING and job.copied_at <= self.now:
                job.place = DEVICE
                job.swapped += job.copied_at - job.left_at

    # A step.

    def want(self, job):
        """(tokens, blocks) of a running request in this step."""
        tokens = min(job.prompt + job.made - job.kv, self.budget())
        return tokens, max(0, self.blocks(job.kv + tokens) - job.blocks)

    def make_room(self, job):
        while True:
            _, wanted = self.want(job)
            available = self.free() - self.claimed
            if wanted <= max(available, 0):
                return True
            if self.memory.on_preemption == "defer" or wanted <= available + self.leaving():
                self.claimed += wanted
                self.paused += 1
                return False
            if self.residents():
                self.evict(max(self.residents(), key=self.key))
                continue
            victim = max(self.running, key=self.key)
            uploading = [r for r in self.waiting if r.place == COMING]
            if uploading or victim.place == COMING:  # wait for their KV, then take its blocks
                self.claimed += wanted
                self.paused += 1
                return False
            self.park(victim)
            if victim.place == DEVICE:
                self.evict(victim)
            if victim is job:
                return False

    def grow(self):
        for job in list(self.running):
            if job not in self.running or job.place == COMING:
                continue
            if self.budget() == 0:
                return
            if self.make_room(job):
                tokens, wanted = self.want(job)
                job.blocks += wanted
                self.tokens[job.i] = tokens
            elif job not in self.running and self.server.vllm == "0.32":
                return

    def displace(self, job, wanted):
        if not self.preempts or self.memory.on_preemption == "defer":
            return False
        score = self.key(job)[0]
        victim = max(self.running, key=self.key, default=None)
        worse = [r for r in self.on_device() if self.key(r)[0] > score]
        reclaimable = sum(r.blocks for r in [*worse, *self.residents()] if r is not job)
        if victim not in worse or wanted > self.free() + self.leaving() + reclaimable:
            return False
        self.park(victim)
        return True

    def make_way(self, job, wanted):
        if len(self.running) == self.server.slots:
            return self.displace(job, wanted)
        if wanted <= self.free() + self.leaving():
            return False
        others = [r for r in self.residents() if r is not job]
        if others:
            self.evict(max(others, key=self.key))
            return True
        return self.displace(job, wanted)

    def lacks(self, job):
        """Blocks that must be free to admit it."""
        target = self.blocks(max(job.prompt + job.made, self.reserved(job)))
        spare = int(self.server.watermark * self.server.blocks) if self.running else 0
        return target - job.blocks + spare

    def admit(self):
        while self.waiting and self.budget() > 0:
            job = min(self.waiting, key=self.key)
            if job.place == LEAVING:
                return
            left = job.prompt + job.made - job.kv
            runs_now = job.place in (NOWHERE, DEVICE)
            if runs_now and not self.server.chunked_prefill and left > self.budget():
                return
            wanted = self.lacks(job)
            if len(self.running) == self.server.slots or wanted > self.free():
                if not self.make_way(job, wanted):
                    return
                continue
            self.waiting.remove(job)
            self.running.append(job)
            if job.scheduled < 0:
                job.scheduled = self.now
            if job.place == HOST:
                self.bring_back(job)
            if job.place == NOWHERE:
                job.place = DEVICE
            if runs_now:
                self.tokens[job.i] = min(left, self.budget())
            held = job.kv + self.tokens.get(job.i, 0)
            job.blocks = max(job.blocks, self.blocks(max(held, self.reserved(job))))

    def ewt(self, job):
        """(microseconds of work before it, how many share it, most picoseconds)."""
        before = [j for j in self.running + self.waiting if self.key(j) < self.key(job)]
        work = sum(int(min(self.order.seconds(j), 1e6) * 1e6) for j in before)
        return work, max(len(self.running), 1), self.order.most_seconds(job, self.now) * 1e12

    def waits_longer(self, job, than):
        work, share, most = self.ewt(job)
        return most > than and work > than // 10**6 * share

    def copy_ahead(self):
        available = self.free() - self.claimed
        low = int(self.memory.spare_share * self.server.blocks)
        idle = self.out.free_at <= self.now
        if idle and available + self.leaving() < low and self.residents():
            job = max(self.residents(), key=self.key)
            round_trip = self.out.seconds(job) + self.back.seconds(job)
            fits = self.blocks(job.kv) <= self.host_free()
            if fits and self.waits_longer(job, round_trip + self.ahead):
                self.evict(job)
                self.counts["offloads_ahead"] += 1
        swapped = [job for job in self.waiting if job.place == HOST]
        if self.back.free_at <= self.now and swapped:
            job, first = (min(those, key=self.key) for those in (swapped, self.waiting))
            available -= max(self.lacks(first), 0) if first is not job else 0
            if available - self.blocks(job.kv) < low:
                return
            if not self.waits_longer(job, self.back.seconds(job) + self.ahead):
                self.bring_back(job)
                self.counts["uploads_ahead"] += 1

    def schedule(self):
        self.clear()
        self.grow()
        if not self.given_up and not self.paused:
            self.admit()
        if self.memory.on_preemption == "ewt":
            self.copy_ahead()
        if not self.tokens and self.paused and self.memory.on_preemption == "defer":
            victim = max(self.running, key=self.key)
            self.park(victim)
            self.drop(victim)

    def advance(self):
        step, sequence, context, prefill = self.times
        active = [self.jobs[i] for i in self.tokens]
        time = step + sequence * len(active)
        time += context * sum(job.kv + self.tokens[job.i] for job in active)
        time += prefill * sum(self.tokens[job.i] for job in active if job.prefilling)
        self.now += time
        self.counts["busy"] += time
        for job in active:
            job.kv += self.tokens[job.i]
            self.computed += self.tokens[job.i]
            if job.kv < job.prompt + job.made:
                continue
            job.prefilling = False
            job.made += 1
            if job.made == self.lead + 1:
                job.first = self.now
            if job.made == job.total:
                self.running.remove(job)
                job.blocks, job.finished = 0, self.now

    def stall(self):
        ends = [job.copied_at for job in self.jobs if job.place in (LEAVING, COMING)]
        until = min(ends + self.ready[self.arrived : self.arrived + 1])
        assert until >= self.now
        self.wait(until)

    def wait(self, until):
        self.counts["stalled"] += until - self.now
        self.now = until

    def check(self):
        """Nothing in use beyond what there is, and each request in one place."""
        assert self.free() >= 0 and self.host_free() >= 0
        assert len(self.running) <= self.server.slots
        assert sum(self.tokens.values()) <= self.server.token_budget
        for job in self.jobs:
            holds = job.place in (DEVICE, LEAVING, COMING) and job.finished < 0
            assert job.blocks * self.server.block_tokens >= (job.kv if holds else 0)
            assert holds or job.blocks == 0
            assert (job in self.running) + (job in self.waiting) <= 1

    def serve(self):
        while any(job.finished < 0 for job in self.jobs):
            self.end_copies()
            while self.arrived < len(self.jobs) and self.ready[self.arrived] <= self.now:
                self.waiting.append(self.jobs[self.arrived])
                self.arrived += 1
            if not self.running and not self.waiting:
                self.counts["idle"] += self.ready[self.arrived] - self.now
                self.now = self.ready[self.arrived]
                continue
            for job in self.waiting:
                self.order.promote(job, self.now)
            self.schedule()
            self.check()
            if not self.tokens and not self.given_up:
                self.stall()
                continue
            if self.tokens:
                if not self.memory.overlap:
                    self.wait(max(self.now, self.out.free_at, self.back.free_at))
                self.advance()
            self.counts["steps"] += 1
        return self
