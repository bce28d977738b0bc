"""The simulated machine's inner loop, compiled by numba: queue, slots, KV blocks, steps.

It is imported only when a simulation runs. ``state`` describes the data, ``loop`` the course of a
step. It is fast because

- time is integer picoseconds: rounding cannot drift or flip ties;
- a step does nothing per running request: the context read is ``kv_offset + n * step``, the KV
  blocks needed are one cell of a histogram over block phases, and the requests that reach their
  first or last token, or exceed their prediction, are one bucket of a ring indexed by step;
- the running requests are gone through only where blocks run short (``running``), and their scores
  updated only where one may be preempted: until then old scores bound them (``running.victim``);
- steps in which nothing can change are taken at once, in closed form (``ring.jump``).
"""
