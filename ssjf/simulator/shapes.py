"""What a model shape costs on a device: arithmetic on peak rates, nothing measured.

A step reads all weights and the KV of its context once, and computes two operations per
parameter and token; reading and computing do not overlap. A real engine reaches a part of the
peaks, and adds its own overhead.
"""

from ssjf.errors import InputError
from ssjf.simulator.memory import Memory
from ssjf.simulator.profile import Profile
from ssjf.simulator.server import Server
from ssjf.simulator.shapes_devices import GIB, Device, device
from ssjf.simulator.shapes_models import ModelShape, shape

MEMORY_SHARE = 0.9  # of the device for weights and KV, as vLLM's gpu_memory_utilization
HOST_BYTES = 64 * GIB  # for swapped KV: our choice


def kv_tokens(model: ModelShape, on: Device, memory_share: float = MEMORY_SHARE) -> int:
    """KV tokens that fit beside the weights; InputError if the weights leave no room."""
    if not 0 < memory_share <= 1:
        raise InputError(f"memory_share is {memory_share}; it must be above 0 and at most 1")
    left = int(on.memory_bytes * memory_share) - model.weight_bytes
    tokens = left // model.kv_bytes_per_token
    if tokens < model.context_tokens:
        raise InputError(
            f"{model.name} needs {model.weight_bytes / 1e9:.1f} GB for weights and "
            f"{model.context_tokens * model.kv_bytes_per_token / 1e9:.1f} GB for the KV of its "
            f"longest request, and {on.name} has {on.memory_bytes * memory_share / 1e9:.1f} GB; "
            "use a larger device or a smaller model"
        )
    return tokens


def profile(model: ModelShape, on: Device) -> Profile:
    """The step-time model of the module docstring."""
    per_token = 2 * model.parameters / on.flops_per_second
    return Profile(
        f"{model.name} on {on.name}",
        step_seconds=model.weight_bytes / on.memory_bytes_per_second,
        per_sequence_seconds=per_token,
        per_context_token_seconds=model.kv_bytes_per_token / on.memory_bytes_per_second,
        per_prefill_token_seconds=per_token,
        source="arithmetic on peak rates, not measured",
    )


def deployed(shape_name: str, device_name: str) -> tuple[Profile, Server, Memory]:
    """A model on a device: step times, vLLM's slots and budget, KV capacity, host and link.

    The memory recomputes; ``dataclasses.replace`` its ``on_preemption`` for the other policies.
    Quantising reads what is on the device and writes at most half of it.
    """
    model, on = shape(shape_name), device(device_name)
    memory = Memory(
        host_tokens=HOST_BYTES // model.kv_bytes_per_token,
        out_bytes_per_second=on.link_bytes_per_second,
        in_bytes_per_second=on.link_bytes_per_second,
        bytes_per_token=model.kv_bytes_per_token,
        quantise_seconds_per_token=1.5 * model.kv_bytes_per_token / on.memory_bytes_per_second,
    )
    return profile(model, on), Server(kv_tokens=kv_tokens(model, on)), memory
