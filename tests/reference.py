"""A plain per-token reference of the serving machine: lists, integers and nothing clever.

It touches every request at every step and follows vLLM v1's ``Scheduler.schedule`` line by
line: running requests in admission order, each allotted its blocks or making room by
preempting the worst in the policy's order; then, if none was preempted, waiting requests in
policy order while slots, token budget and KV blocks allow.
"""

from types import SimpleNamespace


def serve(ready, prompt, output, order, profile, server):
    """Times in picoseconds: lists (scheduled, first token, finished), and the preemption count.

    ``order(job, now, waits)`` gives a sort key at time ``now``, of a request that waits or
    runs (``job.i`` is its index, ``job.made`` the tokens it generated): lowest goes first.
    """
    step_time, sequence, context, prefill = profile.picoseconds()
    lead = profile.start_up_steps
    jobs = [
        SimpleNamespace(i=i, total=o + lead, made=0, kv=0, blocks=0, scheduled=-1, first=-1,
                        finished=-1, done=False, prompt=p, prefilling=True)
        for i, (p, o) in enumerate(zip(prompt, output, strict=True))
    ]  # fmt: skip
    waiting, running = [], []
    now, arrived, free, preemptions, quota = 0, 0, server.blocks, 0, 0
    dynamic = server.batching == "dynamic"
    timeout = round(server.fill_timeout_seconds * 10**12)
    slots = server.running_slots

    def needs(job, tokens):
        return max(0, -(-(job.kv + tokens) // server.block_tokens) - job.blocks)

    def key(job):
        return order(job, now, job not in running)

    while any(job.finished < 0 for job in jobs):
        while arrived < len(jobs) and ready[arrived] <= now:
            waiting.append(jobs[arrived])
            arrived += 1
        if not running:
            if not waiting:
                now = ready[arrived]
                continue
            if dynamic:
                deadline = min(ready[job.i] for job in waiting) + timeout
                if len(waiting) < slots and now < deadline:
                    now = min([deadline, *ready[arrived : arrived + 1]])
                    continue
                quota = min(len(waiting), slots)
        budget = server.token_budget
        scheduled = {}  # job index -> tokens in this step
        victims = []
        for job in list(running):
            if job.done or job not in running:
                continue
            room = True
            while True:
                tokens = min(job.prompt + job.made - job.kv, budget) if job.prefilling else 1
                if needs(job, tokens) <= free:
                    break
                victim = max((r for r in running if not r.done), key=key)
                running.remove(victim)
                budget += scheduled.pop(victim.i, 0)
                free += victim.blocks
                victim.kv = victim.blocks = 0
                victim.prefilling = True
                victims.append(victim)
                if victim is job:
                    room = False
                    break
            if not room:
                break
            free -= needs(job, tokens)
            job.blocks += needs(job, tokens)
            scheduled[job.i] = tokens
            budget -= tokens
        preemptions += len(victims)
        waiting += victims
        while not victims and waiting and budget > 0 and len(running) < slots:
            if dynamic and quota == 0:
                break
            job = min(waiting, key=key)
            known = job.prompt + job.made
            spare = int(server.watermark * server.blocks) if running else 0
            if needs(job, known) + spare > free:
                quota = 0
                break
            if not server.chunked_prefill and known > budget:
                break
            waiting.remove(job)
            running.append(job)
            quota -= 1
            if job.scheduled < 0:
                job.scheduled = now
            tokens = min(known, budget)
            free -= needs(job, tokens)
            job.blocks += needs(job, tokens)
            scheduled[job.i] = tokens
            budget -= tokens
        for i, tokens in scheduled.items():
            jobs[i].kv += tokens
        prefilled = sum(tokens for i, tokens in scheduled.items() if jobs[i].prefilling)
        held = [job for job in running if job.done]
        if scheduled:
            active = [jobs[i] for i in scheduled] + held
            now += step_time + sequence * len(active)
            now += context * sum(job.kv for job in active)
            now += prefill * prefilled
        for i in scheduled:
            job = jobs[i]
            if job.kv < job.prompt + job.made:
                continue  # the prefill goes on
            job.prefilling = False
            job.made += 1
            if job.made == lead + 1:
                job.first = now
            job.done = job.made == job.total
        for job in [job for job in running if job.done and not dynamic]:
            _leave(job, running, now)
            free += job.blocks
        if running and all(job.done for job in running) and (quota <= 0 or not waiting):
            for job in list(running):
                _leave(job, running, now)
                free += job.blocks
    columns = [[getattr(job, name) for job in jobs] for name in ("scheduled", "first", "finished")]
    return *columns, preemptions


def _leave(job, running, now):
    running.remove(job)
    job.finished = now
