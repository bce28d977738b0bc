"""Accelerators and their links to the host: peaks of public specifications."""

from dataclasses import dataclass

from ssjf.errors import unknown

GIB = 2**30


def pcie(generation: int) -> float:
    """Bytes a second in one direction of 16 lanes of PCI Express 3, 4 or 5.

    8 * 10**9 transfers a second and lane in the third generation, twice that in each after it;
    128 of 130 bits are data.
    """
    return 16 * 8e9 * 2 ** (generation - 3) * 128 / 130 / 8


@dataclass(frozen=True)
class Device:
    """An accelerator and its link to the host: peaks of public specifications."""

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


def device(name: str) -> Device:
    """The device of that name; unknown names raise, listing the known ones."""
    if name not in DEVICES:
        raise unknown("device", name, DEVICES)
    return DEVICES[name]
