"""What the coming steps bring: events, and blocks that running requests will open.

Bucket ``step % size`` of the ring lists the requests with an event in that step: each that decodes
has one event ahead, its first token, its last, or the one at which it exceeds its prediction. A
bitmap of the buckets not empty follows, and then the histogram of growth: how many of those that
decode open a block in a step, by step modulo block.
"""

import math

import numpy as np

from ssjf.simulator.core.compiled import compiled
from ssjf.simulator.core.state import NONE

ONE = np.uint64(1)


@compiled
def phase(m, step):
    """The cell of the histogram of growth for a step (of any sign)."""
    cell = step & (m.block - 1) if m.shift >= 0 else step % m.block
    return m.growth_at + cell


@compiled
def _bucket(m, r, x):
    """The bucket of the next event of a request that decodes."""
    tokens = r.total
    if not r.started:
        tokens = m.lead + 1
    elif m.follows and x.estimate < tokens:
        tokens = math.ceil(x.estimate)
    return (r.since + tokens - r.generated - 1) & (m.ring_size - 1)


@compiled
def link(m, requests, extra, ring, i):
    """Note the next event of request i."""
    bucket = _bucket(m, requests[i], extra[i])
    requests[i].link = ring[bucket]
    ring[bucket] = i
    ring[m.ring_size + (bucket >> 6)] |= 1 << (bucket & 63)


@compiled
def _unlink(m, requests, extra, ring, i):
    bucket = _bucket(m, requests[i], extra[i])
    j = ring[bucket]
    if j == i:
        ring[bucket] = requests[i].link
        if ring[bucket] == NONE:
            ring[m.ring_size + (bucket >> 6)] &= ~(1 << (bucket & 63))
        return
    while requests[j].link != i:
        j = requests[j].link
    requests[j].link = requests[i].link


@compiled
def start_decoding(m, requests, extra, ring, i, step):
    """From this step on i has a token a step; its KV then is ``prompt + generated`` tokens."""
    r = requests[i]
    known = r.prompt + r.generated
    r.since = step
    m.decoding += 1
    m.kv_offset += known - step
    if r.reserved == 0:
        ring[phase(m, step - known + 1)] += 1
    link(m, requests, extra, ring, i)


@compiled
def stop_decoding(m, requests, extra, ring, i, linked):
    """Take i out of all that is counted of those that decode (and its event, if ``linked``)."""
    r = requests[i]
    known = r.prompt + r.generated
    m.decoding -= 1
    m.kv_offset -= known - r.since
    if r.reserved == 0:
        ring[phase(m, r.since - known + 1)] -= 1
    if linked:
        _unlink(m, requests, extra, ring, i)


@compiled
def steps_to_event(m, ring):
    """How many steps from now on have no event (there must be one somewhere)."""
    bucket = m.step & (m.ring_size - 1)
    ahead = 0
    word = np.uint64(ring[m.ring_size + (bucket >> 6)]) >> np.uint64(bucket & 63)
    while word == 0:
        ahead += 64 - (bucket & 63)
        bucket = (((bucket >> 6) + 1) << 6) & (m.ring_size - 1)
        word = np.uint64(ring[m.ring_size + (bucket >> 6)])
    while word & ONE == 0:
        word >>= ONE
        ahead += 1
    return ahead
