"""The simulator's inner loop, in pieces: heaps, event ring, waiting queue, KV blocks, steps.

Compiled by numba, imported only when a simulation runs. What makes it fast:

- time is integer picoseconds: no drift, no flipped ties;
- nothing is done per running request in a step: the context read is ``kv_offset + n * step``,
  the KV blocks needed are one cell of a histogram over block phases, and the requests that
  reach their first or last token are one bucket of a ring indexed by step;
- steps in which nothing can change are taken at once, in closed form.
"""
