"""The processor of this machine: its name, its instruction sets and what follows for vLLM."""

import platform
from functools import cache
from pathlib import Path
from typing import Any, Literal

INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8",
                    "asimd", "bf16", "i8mm", "sve")  # fmt: skip
"""Flags of ``/proc/cpuinfo`` (x86 and Arm) that kernels of vLLM and PyTorch ask for."""


def processor(cpuinfo: str | None = None) -> str:
    """The processor's name, from ``/proc/cpuinfo`` where that is readable."""
    names = _values("model name", _read() if cpuinfo is None else cpuinfo)
    return names[0] if names else platform.processor()


def instruction_sets(cpuinfo: str | None = None) -> list[str]:
    """The ``INSTRUCTION_SETS`` that the processor has; empty where they are not known."""
    text = _read() if cpuinfo is None else cpuinfo
    flags = {flag for key in ("flags", "Features") for flag in " ".join(_values(key, text)).split()}
    return [name for name in INSTRUCTION_SETS if name in flags]


def precision(cpuinfo: str | None = None) -> Literal["float32", "bfloat16"]:
    """``bfloat16`` if the processor has instructions for it, else ``float32``, which is never
    emulated."""
    has = {"avx512_bf16", "amx_bf16", "bf16"} & set(instruction_sets(cpuinfo))
    return "bfloat16" if has else "float32"


def without_amx() -> None:
    """Make vLLM use AVX-512 instead of AMX in this process.

    On AMX processors the attention of vLLM's CPU back end (0.32) dies of an illegal instruction
    when a whole batch is one token without context, as a prompt or its first chunk can be.
    """
    import torch

    if hasattr(torch.cpu, "_is_amx_tile_supported"):
        torch.cpu._is_amx_tile_supported = lambda: False


class WithoutAmx:
    """For vLLM's ``--worker-extension-cls``: calls ``without_amx`` in its worker."""

    def __new__(cls, *arguments: Any, **named: Any) -> "WithoutAmx":
        without_amx()
        return super().__new__(cls)


def _values(key: str, cpuinfo: str) -> list[str]:
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    return [value.strip() for name, _, value in lines if name.strip() == key]


@cache
def _read() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
