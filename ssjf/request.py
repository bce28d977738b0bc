"""Requests and their completions. This file imports nothing of the package.

Tables are columns of equal length n, one entry per request, sorted by arrival. Times are
seconds from the start of the run, lengths are tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


PAPER_THRESHOLDS = (42.0, 141.0, 294.0, 503.0)
"""Tokens; p25, p50, p75 and p99 of the training lengths of vicuna-13b, first rounds. Source:
the SSJF authors' code, commit 4b86686, output-token-len-prediction/preprocess_dataset.py."""


@dataclass(frozen=True)
class Requests:
    """A workload: n requests as columns, sorted by ``arrived_at``.

    ``predictions`` holds, by name, columns of predicted output lengths that came with the data:
    tokens or class ids (a scheduler needs only their order).
    """

    arrived_at: FloatArray
    prompt_tokens: IntArray
    output_tokens: IntArray
    predictions: Mapping[str, FloatArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.arrived_at)
        object.__setattr__(self, "arrived_at", np.asarray(self.arrived_at, np.float64))
        for name in ("prompt_tokens", "output_tokens"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.int64))
        columns = [self.prompt_tokens, self.output_tokens, *self.predictions.values()]
        if any(len(column) != n for column in columns):
            raise ValueError(f"every column of a workload must have its {n} rows")

    def __len__(self) -> int:
        return len(self.arrived_at)

    def take(self, rows: NDArray | slice) -> "Requests":
        """The given rows (indices, mask or slice), in the given order."""
        return Requests(
            self.arrived_at[rows],
            self.prompt_tokens[rows],
            self.output_tokens[rows],
            {name: column[rows] for name, column in self.predictions.items()},
        )

    def arriving(self, arrived_at: FloatArray) -> "Requests":
        """The same requests at other arrival times (which must be sorted)."""
        return replace(self, arrived_at=np.asarray(arrived_at, np.float64))


@dataclass(frozen=True)
class Completions:
    """Times measured for n requests, in the order of ``requests``, in seconds.

    ``finished_at`` is NaN for a request the engine never served (only the published
    protocol loses requests). ``counters`` are totals of the run: steps, preemptions, ….
    """

    requests: Requests
    scheduled_at: FloatArray
    first_token_at: FloatArray
    finished_at: FloatArray
    preemptions: IntArray
    counters: Mapping[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.finished_at)
