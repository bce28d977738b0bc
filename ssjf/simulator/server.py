"""The resources of a serving machine: slots, token budget, and KV memory in two tiers."""

import math
import tomllib
from contextlib import suppress
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from ssjf.config import checked
from ssjf.errors import InputError
from ssjf.simulator.profile import PICOSECONDS, Seconds

UNLIMITED = 2**40
OnPreemption = Literal["recompute", "swap", "ewt", "defer"]
ON_PREEMPTION = get_args(OnPreemption)
KV_BITS = 16
LONGEST_COPY_SECONDS = 1e5
Count = Annotated[int, Field(ge=1)]


@checked
class Server:
    """The configuration of the simulated server.

    slots: requests running at a time (vLLM ``max_num_seqs``).
    kv_tokens: KV memory in tokens, rounded down to blocks; None: unlimited.
    block_tokens: tokens per KV block.
    token_budget: tokens a step may process (vLLM ``max_num_batched_tokens``).
    chunked_prefill: may a prompt be split to fit the remaining budget?
    watermark: share of the blocks kept free when admitting beside running requests.
    vllm: version of the scheduler. If a running request needs blocks and is itself the victim, the
        requests admitted after it get nothing in this step in 0.32, but do in 0.33 (vllm/v1/core/
        sched/scheduler.py); exact for 0.32, and for that source with that change.
    """

    slots: Count = 256
    kv_tokens: int | None = None
    block_tokens: Count = 16
    token_budget: Count = 8192
    chunked_prefill: bool = True
    watermark: float = Field(0.0, ge=0, lt=1)
    vllm: Literal["0.32", "0.33"] = "0.32"

    def __post_init__(self) -> None:
        if self.token_budget < self.slots:
            raise InputError(
                f"token_budget is {self.token_budget}; it must be at least the {self.slots} slots, "
                "each of which decodes a token a step"
            )
        if self.kv_tokens is not None and self.kv_tokens < self.block_tokens:
            raise InputError(
                f"kv_tokens is {self.kv_tokens}; it must hold at least one block "
                f"of {self.block_tokens} tokens"
            )

    @property
    def blocks(self) -> int:
        """Number of KV blocks."""
        return UNLIMITED if self.kv_tokens is None else self.kv_tokens // self.block_tokens


@checked
class Memory:
    """The host tier, the link to it, and the treatment of preempted requests.

    on_preemption:
        ``recompute``: drop the KV and compute it again (vLLM).
        ``swap``: the KV stays on the device until its blocks are needed, is then copied to the
        host, and copied back when the request is admitted. If the host is full, it is dropped.
        ``ewt``: the same, with copies ahead of time by estimated waiting time (EWT, below).
        ``defer``: no preemption. A running request without a block pauses until one is free;
        only if all pause, the last in the policy's order is recomputed.
    host_tokens: unquantised KV tokens that the host holds.
    out_bytes_per_second, in_bytes_per_second: from the device and to it; infinite: no time.
        Each direction makes one copy at a time, first come, first served.
    overlap: do copies run while the device computes? If not, a step waits for them.
    latency_seconds: of each copy.
    bytes_per_token: KV bytes of a token on the device (16-bit numbers).
    quantise: bits of a number on the host: None, 8 (half the bytes, twice the tokens) or 4.
    quantise_seconds_per_token: to quantise, and again to restore; added to the copy's time.
    reserve: blocks reserved at admission: ``none``, for ``maximum_tokens`` of prompt and output
        (ORCA), or for the ``true`` length (ORCA with an oracle).
    spare_share: share of the device's blocks that ``ewt`` keeps free for the next requests.
    ahead_seconds: how long before its turn ``ewt`` brings a request back.

    The EWT of a waiting request is the predicted remaining time of all requests before it in the
    policy's order, divided by the number of running requests, and at most the time until ageing
    makes it the first. That is our reconstruction; ALISE's definition is not known to us. While
    spare blocks are lacking, the last waiting request with its KV on the device is offloaded if its
    EWT exceeds both copies and ``ahead_seconds``. The first swapped request is uploaded into blocks
    that are not spare once its EWT is at most the copy back and ``ahead_seconds``.
    """

    on_preemption: OnPreemption = "recompute"
    host_tokens: int = Field(0, ge=0, lt=2**40)
    out_bytes_per_second: float = Field(math.inf, gt=0)
    in_bytes_per_second: float = Field(math.inf, gt=0)
    overlap: bool = True
    latency_seconds: Seconds = 0.0
    bytes_per_token: float = Field(0.0, ge=0, lt=1e12)
    quantise: Literal[None, 8, 4] = None
    quantise_seconds_per_token: Seconds = 0.0
    reserve: Literal["none", "maximum", "true"] = "none"
    maximum_tokens: int | None = None
    spare_share: float = Field(0.05, ge=0, lt=1)
    ahead_seconds: Seconds = 1.0

    def __post_init__(self) -> None:
        if self.reserve == "maximum" and not (self.maximum_tokens or 0) > 0:
            raise InputError(
                "reserve 'maximum' needs maximum_tokens, the longest prompt and output"
            )

    @property
    def swaps(self) -> bool:
        """Is the host tier used?"""
        return self.on_preemption in ("swap", "ewt")

    @property
    def compression(self) -> int:
        """How many times smaller KV is on the host."""
        return KV_BITS // self.quantise if self.quantise else 1

    @property
    def host_capacity_tokens(self) -> int:
        """KV tokens that the host holds, quantised if so configured."""
        return self.host_tokens * self.compression

    def token_picoseconds(self) -> tuple[int, int]:
        """A token's time on the link (out, in), with (de)quantisation."""
        quantising = self.quantise_seconds_per_token if self.quantise else 0.0
        out, back = (
            self.bytes_per_token / self.compression / rate + quantising
            for rate in (self.out_bytes_per_second, self.in_bytes_per_second)
        )
        for name, seconds in (("out", out), ("in", back)):
            if seconds > LONGEST_COPY_SECONDS:
                raise InputError(
                    f"a token takes {seconds:.3g} s on the link ({name}_bytes_per_second); "
                    f"at most {LONGEST_COPY_SECONDS:.0f} s are allowed"
                )
        return round(out * PICOSECONDS), round(back * PICOSECONDS)


def memory_of(text: str) -> Memory:
    """Return the ``Memory`` of a text: ``on_preemption``, then ``name=value`` for other fields."""
    first, *rest = [part.strip() for part in text.split(",")]
    fields: dict[str, Any] = {"on_preemption": first}
    for part in rest:
        name, _, value = part.partition("=")
        fields[name] = value
        if name != "reserve":  # whose ``true`` is a word
            with suppress(tomllib.TOMLDecodeError):
                fields[name] = tomllib.loads(f"value = {value}")["value"]
    return Memory(**fields)
