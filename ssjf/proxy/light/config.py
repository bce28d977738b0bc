"""What can be chosen of a light proxy's training, and within which limits."""

import math
from dataclasses import dataclass

from ssjf.errors import InputError
from ssjf.proxy.limits import check

LIMITS = {
    "buckets": (2**8, 2**24), "dimensions": (1, 2**8), "ridge": (1e-6, 1e6),
    "least_prompts": (1, 10**6), "learning_rate": (1e-6, 1), "leaves": (2, 2**12),
    "most_trees": (1, 10**5), "patience": (1, 10**5), "bands": (1, 100), "threads": (1, 256),
    "seed": (0, 2**31 - 1),
}  # fmt: skip


@dataclass(frozen=True)
class LightConfig:
    """The sizes and speeds of the light proxy's parts; see ``LIMITS``."""

    buckets: int = 2**17
    dimensions: int = 24
    ridge: float = 0.5
    least_prompts: int = 2
    learning_rate: float = 0.03
    leaves: int = 31
    most_trees: int = 2000
    patience: int = 100
    bands: int = 5
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check(self, LIMITS)
        if not math.log2(self.buckets).is_integer():
            raise InputError(f"buckets is {self.buckets}; it must be a power of two")
