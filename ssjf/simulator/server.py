"""What a serving machine has: slots, token budget, and KV memory in two tiers with a link."""

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

from ssjf.errors import InputError, unknown
from ssjf.simulator.profile import PICOSECONDS

BATCHING = ("none", "continuous")
UNLIMITED = 2**40
ON_PREEMPTION = ("recompute", "swap", "ewt", "defer")
RESERVE = ("none", "maximum", "true")
KV_BITS = 16
LONGEST_COPY_SECONDS = 1e5


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
            _check(self, name, getattr(self, name) >= 1, "at least 1")
        budget = f"at least the {self.running_slots} slots, each of which decodes a token a step"
        _check(self, "token_budget", self.token_budget >= self.running_slots, budget)
        if self.kv_tokens is not None and self.kv_tokens < self.block_tokens:
            raise InputError(
                f"kv_tokens is {self.kv_tokens}; it must hold at least one block "
                f"of {self.block_tokens} tokens"
            )
        _check(self, "watermark", 0 <= self.watermark < 1, "from 0 to below 1")

    @property
    def running_slots(self) -> int:
        """Requests that can really run at a time."""
        return 1 if self.batching == "none" else self.slots

    @property
    def blocks(self) -> int:
        """KV blocks of the machine."""
        return UNLIMITED if self.kv_tokens is None else self.kv_tokens // self.block_tokens


@dataclass(frozen=True)
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

    on_preemption: Literal["recompute", "swap", "ewt", "defer"] = "recompute"
    host_tokens: int = 0
    out_bytes_per_second: float = math.inf
    in_bytes_per_second: float = math.inf
    overlap: bool = True
    latency_seconds: float = 0.0
    bytes_per_token: float = 0.0
    quantise: Literal[None, 8, 4] = None
    quantise_seconds_per_token: float = 0.0
    reserve: Literal["none", "maximum", "true"] = "none"
    maximum_tokens: int | None = None
    spare_share: float = 0.05
    ahead_seconds: float = 1.0

    def __post_init__(self) -> None:
        if self.on_preemption not in ON_PREEMPTION:
            raise unknown("on_preemption", self.on_preemption, ON_PREEMPTION)
        if self.reserve not in RESERVE:
            raise unknown("reserve", self.reserve, RESERVE)
        if self.quantise not in (None, 8, 4):
            raise InputError(f"quantise is {self.quantise!r}; it must be None, 8 or 4 bits")
        _check(self, "host_tokens", 0 <= self.host_tokens < 2**40, "from 0 to 2**40")
        for name in ("out_bytes_per_second", "in_bytes_per_second"):
            _check(self, name, getattr(self, name) > 0, "above 0")
        for name in ("latency_seconds", "quantise_seconds_per_token", "ahead_seconds"):
            _check(self, name, 0 <= getattr(self, name) < 1e4, "from 0 to 1e4")
        _check(self, "bytes_per_token", 0 <= self.bytes_per_token < 1e12, "from 0 to 1e12")
        _check(self, "spare_share", 0 <= self.spare_share < 1, "from 0 to below 1")
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


def _check(of: Server | Memory, name: str, is_right: bool, allowed: str) -> None:
    if not is_right:
        raise InputError(f"{name} is {getattr(of, name)}; it must be {allowed}")


def memory_of(text: str) -> Memory:
    """What is done with a preempted request, then ``name=value`` for fields of ``Memory``.

    InputError names what is wrong and lists what is known.
    """
    first, *rest = [part.strip() for part in text.split(",")]
    if first not in ON_PREEMPTION:
        raise unknown("memory", first, ON_PREEMPTION)
    given: dict[str, Any] = {"on_preemption": first}
    known = [field.name for field in fields(Memory) if field.name != "on_preemption"]
    for part in rest:
        name, _, value = part.partition("=")
        if name not in known:
            raise unknown("option of --memory", name, known)
        given[name] = _value(name, value)
    return Memory(**given)


def _value(name: str, text: str) -> Any:
    if name == "reserve":
        return text
    if name == "overlap":
        if text not in ("true", "false"):
            raise InputError(f"--memory: overlap is {text!r}; it must be true or false")
        return text == "true"
    whole = name in ("host_tokens", "quantise", "maximum_tokens")
    try:
        return int(text) if whole else float(text)
    except ValueError:
        number = "whole number" if whole else "number"
        raise InputError(f"--memory: {name} is {text!r}; it must be a {number}") from None
