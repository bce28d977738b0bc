"""The simulated machine's inner loop: waiting, running, KV blocks in two tiers, steps.

Compiled by numba, imported only when a simulation runs; ``state`` says what there is, ``loop`` what
happens in a step. What makes it fast:

- time is integer picoseconds: no drift, no flipped ties;
- nothing is done per running request in a step: the context read is ``kv_offset + n * step``, the
  KV blocks needed are one cell of a histogram over block phases, and the requests that reach their
  first or last token, or exceed their prediction, are one bucket of a ring indexed by step;
- the running requests are gone through only where blocks run short (``running``), and their scores
  only where one may have to make way: until then old scores bound the new (``running.victim``);
- steps in which nothing can change are taken at once, in closed form (``ring.jump``).
"""
