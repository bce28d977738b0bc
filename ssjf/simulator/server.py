"""What a serving machine has: slots, token budget, and KV memory in two tiers with a link."""

import math
import tomllib
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from ssjf.config import checked
from ssjf.errors import InputError
from ssjf.simulator.profile import PICOSECONDS

UNLIMITED = 2**40
OnPreemption = Literal["recompute", "swap", "ewt", "defer"]
ON_PREEMPTION = get_args(OnPreemption)
KV_BITS = 16
LONGEST_COPY_SECONDS = 1e5
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0, lt=1e4)]


@checked
class Server:
    """The configuration of the simulated server.

    slots: requests running at a time (vLLM ``max_num_seqs``).
    kv_tokens: KV memory in tokens, rounded down to blocks; None is unlimited.
    block_tokens: tokens per KV block.
    token_budget: tokens a step may process (vLLM ``max_num_batched_tokens``).
    chunked_prefill: may a prompt be cut to the budget that is left?
    watermark: share of the blocks kept free when admitting beside running requests.
    vllm: whose scheduler it is. A running request that is itself the victim of its want of blocks
        ends the step of those admitted after it in 0.32, and not in 0.33 (vllm/v1/core/sched/
        scheduler.py); exact for 0.32, and for that source with that change.
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
        """KV blocks of the machine."""
        return UNLIMITED if self.kv_tokens is None else self.kv_tokens // self.block_tokens


@checked
class Memory:
    """The host tier, the link to it, and what is done with a preempted request.

    on_preemption:
        ``recompute``: its KV is dropped and computed again (vLLM).
        ``swap``: its KV stays on the device until the blocks are wanted, is then copied to the
        host, and is copied back when its turn has come. Where the host is full, it is dropped.
        ``ewt``: the same, and ahead of time by estimated waiting time (EWT, below).
        ``defer``: nobody is preempted. A running request without a block pauses until one is
        free; only where all pause is the worst one recomputed.
    host_tokens: KV tokens the host holds unquantised.
    out_bytes_per_second, in_bytes_per_second: from the device and to it; infinite is free.
        Each direction makes one copy at a time, in the order asked for.
    overlap: do copies go on while the device computes? If not, a step waits for them.
    latency_seconds: of each copy.
    bytes_per_token: KV bytes of a token on the device (16-bit numbers).
    quantise: bits of a number while on the host: None, 8 (half the bytes, twice the tokens in
        the host) or 4.
    quantise_seconds_per_token: to quantise, and again to restore; part of the copy's time (with
        ``quantise``).
    reserve: blocks taken at admission for growth: ``none``, for ``maximum_tokens`` of prompt
        and output (ORCA), or for the ``true`` length (ORCA with an oracle).
    spare_share: share of the device's blocks that ``ewt`` keeps free for who comes next.
    ahead_seconds: how far ahead of its turn ``ewt`` brings a request back.

    EWT, of a request that waits: predicted remaining time of all that stand before it in the
    policy's order, over the number that run, and at most the time that ageing needs to bring it
    to the top. That is our reconstruction; ALISE's definition is not known to us. The last
    resident in the order is offloaded while spare blocks lack, if its EWT exceeds both copies
    and ``ahead_seconds``; the first swapped one is uploaded into blocks not spare, once its EWT
    is at most the copy back and ``ahead_seconds``.
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
        """Is the host used at all?"""
        return self.on_preemption in ("swap", "ewt")

    @property
    def compression(self) -> int:
        """How many times smaller KV is while on the host."""
        return KV_BITS // self.quantise if self.quantise else 1

    @property
    def host_capacity_tokens(self) -> int:
        """KV tokens the host holds as they are kept there."""
        return self.host_tokens * self.compression

    def token_picoseconds(self) -> tuple[int, int]:
        """A token's time on the link (out, in), (de)quantisation included."""
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
    """What is done with a preempted request, then ``name=value`` for fields of ``Memory``.

    InputError names what is wrong and lists what is known.
    """
    first, *rest = [part.strip() for part in text.split(",")]
    given: dict[str, Any] = {"on_preemption": first}
    for part in rest:
        name, _, value = part.partition("=")
        try:
            given[name] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            given[name] = value
        if name == "reserve":  # where ``true`` is a word
            given[name] = value
    return Memory(**given)
