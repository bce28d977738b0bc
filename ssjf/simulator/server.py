"""What a serving machine has: slots, KV memory, token budget, and how it forms batches."""

from dataclasses import dataclass
from typing import Literal

from ssjf.errors import InputError, unknown

BATCHING = ("none", "continuous")
UNLIMITED = 2**40


@dataclass(frozen=True)
class Server:
    """The configuration of the simulated server.

    slots: requests running at a time (vLLM ``max_num_seqs``).
    kv_tokens: KV memory in tokens, rounded down to blocks; None is unlimited.
    block_tokens: tokens per KV block.
    token_budget: tokens a step may process (vLLM ``max_num_batched_tokens``).
    chunked_prefill: may a prompt be cut to the budget that is left?
    watermark: share of the blocks kept free when admitting beside running requests.
    batching: ``continuous``, or ``none`` (one request at a time).
    """

    slots: int = 256
    kv_tokens: int | None = None
    block_tokens: int = 16
    token_budget: int = 8192
    chunked_prefill: bool = True
    watermark: float = 0.0
    batching: Literal["none", "continuous"] = "continuous"

    def __post_init__(self) -> None:
        if self.batching not in BATCHING:
            raise unknown("batching", self.batching, BATCHING)
        for name in ("slots", "block_tokens", "token_budget"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.token_budget < self.running_slots:
            raise InputError(
                f"token_budget is {self.token_budget}; it must be at least the "
                f"{self.running_slots} slots, each of which decodes a token a step"
            )
        if self.kv_tokens is not None and self.kv_tokens < self.block_tokens:
            raise InputError(
                f"kv_tokens is {self.kv_tokens}; it must hold at least one block "
                f"of {self.block_tokens} tokens"
            )
        if not 0 <= self.watermark < 1:
            raise InputError(f"watermark is {self.watermark}; it must be from 0 to below 1")

    @property
    def running_slots(self) -> int:
        """Requests that can really run at a time."""
        return 1 if self.batching == "none" else self.slots

    @property
    def blocks(self) -> int:
        """KV blocks of the machine."""
        return UNLIMITED if self.kv_tokens is None else self.kv_tokens // self.block_tokens
