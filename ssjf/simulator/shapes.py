"""Step times and KV capacity of a decoder model on a device, by arithmetic on peak rates.

Nothing is measured. A step reads all weights and the KV of its context once, and computes two
operations per parameter and token; reading and computing do not overlap. A real engine reaches a
part of the peak rates, and adds its own overhead.
"""

from dataclasses import dataclass
from typing import Literal

from ssjf.errors import InputError, unknown
from ssjf.simulator.profile import Profile
from ssjf.simulator.server import Memory, Server

GIB = 2**30
MEMORY_SHARE = 0.9  # of the device for weights and KV, as vLLM's gpu_memory_utilization
HOST_BYTES = 64 * GIB  # for swapped KV: our choice
BYTES = 2  # per number: float16 or bfloat16


@dataclass(frozen=True)
class Sizes:
    """Layers, widths, attention and key-value heads, vocabulary and context of a decoder."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    inner: int
    vocabulary: int
    context_tokens: int


@dataclass(frozen=True)
class ModelShape(Sizes):
    """A named decoder.

    ``family``: ``opt`` has biases, learned positions and one table for both embeddings; ``neox``
    (Pythia) has biases and two tables; ``llama`` has three matrices in the feed-forward part, no
    biases and two tables.
    """

    name: str
    family: Literal["opt", "neox", "llama"]

    @property
    def kv_width(self) -> int:
        """Numbers in one key of all heads."""
        return self.hidden // self.heads * self.kv_heads

    @property
    def parameters(self) -> int:
        """Number of weights."""
        biased = self.family != "llama"
        attention = 2 * self.hidden * (self.hidden + self.kv_width)
        forward = (2 if biased else 3) * self.hidden * self.inner
        biases = (2 * self.hidden + 2 * self.kv_width + self.inner + self.hidden) * biased
        norm = self.hidden * (2 if biased else 1)
        layer = attention + forward + biases + 2 * norm
        embeddings = 2 * self.vocabulary * self.hidden
        if self.family == "opt":  # one table, and positions from 2 on
            embeddings = (self.vocabulary + self.context_tokens + 2) * self.hidden
        return self.layers * layer + norm + embeddings

    @property
    def weight_bytes(self) -> int:
        return BYTES * self.parameters

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of a key and a value in each layer."""
        return 2 * BYTES * self.layers * self.kv_width


_SHAPES = (  # layer sizes of the published configurations of the models that ALISE ran
    ModelShape(32, 2560, 32, 32, 10240, 50272, 2048, "opt-2.7b", "opt"),
    ModelShape(32, 4096, 32, 32, 16384, 50272, 2048, "opt-6.7b", "opt"),
    ModelShape(40, 5120, 40, 40, 20480, 50272, 2048, "opt-13b", "opt"),
    ModelShape(32, 4096, 32, 32, 11008, 32000, 2048, "llama-7b", "llama"),
    ModelShape(40, 5120, 40, 40, 13824, 32000, 2048, "llama-13b", "llama"),
    ModelShape(36, 5120, 40, 40, 20480, 50688, 2048, "pythia-12b", "neox"),
)
SHAPES = {shape.name: shape for shape in _SHAPES}


def pcie(generation: int) -> float:
    """Bytes per second in one direction of 16 lanes of PCI Express 3, 4 or 5.

    A lane makes 8 * 10**9 transfers per second in generation 3, and twice as many in each later
    one; 128 of 130 bits are data.
    """
    return 16 * 8e9 * 2 ** (generation - 3) * 128 / 130 / 8


@dataclass(frozen=True)
class Device:
    """An accelerator and its link to the host: peak rates of public specifications."""

    name: str
    memory_bytes: int
    memory_bytes_per_second: float
    flops_per_second: float
    link_bytes_per_second: float


_DEVICES = (
    Device("v100-32gb", 32 * GIB, 900e9, 125e12, pcie(3)),  # SXM2, float16 tensor cores
    Device("a100-80gb", 80 * GIB, 2039e9, 312e12, pcie(4)),  # SXM4, bfloat16
    Device("h200", 141 * 10**9, 4.8e12, 989e12, pcie(5)),  # SXM5, bfloat16, dense
)
DEVICES = {device.name: device for device in _DEVICES}


def kv_tokens(model: ModelShape, on: Device) -> int:
    """KV tokens that fit beside the weights; raises InputError if the longest request does not."""
    room = int(on.memory_bytes * MEMORY_SHARE) - model.weight_bytes
    tokens = room // model.kv_bytes_per_token
    if tokens < model.context_tokens:
        raise InputError(
            f"{model.name} needs {model.weight_bytes / 1e9:.1f} GB for weights and "
            f"{model.context_tokens * model.kv_bytes_per_token / 1e9:.1f} GB for the KV of its "
            f"longest request, and {on.name} has {on.memory_bytes * MEMORY_SHARE / 1e9:.1f} GB; "
            "use a larger device or a smaller model"
        )
    return tokens


def deployed(shape_name: str, device_name: str) -> tuple[Profile, Server, Memory]:
    """Return the step times, server and memory of a model on a device.

    The server has the default slots and budget. The memory recomputes; ``dataclasses.replace`` its
    ``on_preemption`` for the other policies. Quantising reads the KV on the device and writes at
    most half of it.
    """
    if shape_name not in SHAPES:
        raise unknown("model shape", shape_name, SHAPES)
    if device_name not in DEVICES:
        raise unknown("device", device_name, DEVICES)
    model, on = SHAPES[shape_name], DEVICES[device_name]
    per_token = 2 * model.parameters / on.flops_per_second
    profile = Profile(
        f"{model.name} on {on.name}",
        step_seconds=model.weight_bytes / on.memory_bytes_per_second,
        per_sequence_seconds=per_token,
        per_context_token_seconds=model.kv_bytes_per_token / on.memory_bytes_per_second,
        per_prefill_token_seconds=per_token,
        source="arithmetic on peak rates, not measured",
    )
    memory = Memory(
        host_tokens=HOST_BYTES // model.kv_bytes_per_token,
        out_bytes_per_second=on.link_bytes_per_second,
        in_bytes_per_second=on.link_bytes_per_second,
        bytes_per_token=model.kv_bytes_per_token,
        quantise_seconds_per_token=1.5 * model.kv_bytes_per_token / on.memory_bytes_per_second,
    )
    return profile, Server(kv_tokens=kv_tokens(model, on)), memory
