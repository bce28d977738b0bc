"""Deployments: what an engine is started with, by name or from a user's TOML file.

A deployment bounds its runs: ``worker`` sets smaller batches, token budgets and KV memories run by
run in the same engine.
"""

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from ssjf import hardware
from ssjf.config import STRICT, read_toml, validated
from ssjf.errors import InputError, unknown
from ssjf.harness.models import SHAPES
from ssjf.harness.pretrained import PRETRAINED, get

Count = Annotated[int, Field(ge=1)]


class Deployment(BaseModel):
    """A model on a device, with the largest configuration that its runs may use.

    shape: one of ``models.SHAPES``, of random weights; or else model: one of
    ``pretrained.PRETRAINED`` or a Hugging Face folder. precision: vLLM ``dtype``, by default what
    the processor is good at. slots: vLLM ``max_num_seqs``. token_budget: vLLM
    ``max_num_batched_tokens``. kv_tokens: KV memory in tokens. block_tokens: tokens per KV block
    (the CPU back end takes multiples of 32). context_tokens: vLLM ``max_model_len``.
    memory_share: of the device's memory that vLLM may take (on a CPU only checked).
    eager: no CUDA graphs.
    kv_dtype: vLLM ``kv_cache_dtype``; ``fp8`` holds twice the tokens of bfloat16 in the same bytes.
    swap_bits: 0 recomputes a preempted request, as vLLM does; 8 or 16 swaps its KV out to host
    memory, quantised or unchanged (``connector.HostSwap``), of at most host_tokens.
    clock: ``wall``, or ``cpu``: the processor time of the engine, without idle time. For a shared
    CPU, on which real time would measure the other processes too.
    """

    model_config = STRICT

    name: str
    shape: str | None = None
    model: str | None = None
    precision: Literal["float32", "bfloat16"] = Field(default_factory=lambda: hardware.precision())
    slots: Count
    token_budget: Count
    kv_tokens: Count
    block_tokens: Count
    context_tokens: Count
    memory_share: float = Field(gt=0, le=1)
    eager: bool = True
    kv_dtype: Literal["auto", "fp8"] = "auto"
    swap_bits: Literal[0, 8, 16] = 0
    host_tokens: Count = 10**9
    clock: Literal["wall", "cpu"] = "wall"

    @field_validator("shape")
    @classmethod
    def _known(cls, shape: str | None) -> str | None:
        if shape is not None and shape not in SHAPES:
            raise unknown("shape", shape, SHAPES)
        return shape

    @model_validator(mode="after")
    def _one_model(self) -> "Deployment":
        if (self.shape is None) == (self.model is None):
            raise InputError("a deployment has a shape (random weights) or a model: one of them")
        return self

    def folder(self) -> Path | None:
        """Return the folder of the real model, downloaded if need be; None for a shape."""
        if self.model in PRETRAINED:
            return get(str(self.model), precision=self.precision)
        return None if self.model is None else Path(self.model)

    def replace(self, **changes: Any) -> "Deployment":
        """Return a deployment with changed values; InputError for bad ones."""
        return validated(type(self), self.as_json() | changes, f"deployment {self.name}")

    def engine_arguments(self, model: Path) -> dict[str, Any]:
        """Return arguments of ``vllm.EngineArgs``: only those that 0.26 and 0.32 both have."""
        arguments: dict[str, Any] = {
            "model": str(model),
            "skip_tokenizer_init": True,
            "load_format": "auto" if (model / "model.safetensors").exists() else "dummy",
            "dtype": self.precision,
            "max_model_len": self.context_tokens,
            "max_num_seqs": self.slots,
            "max_num_batched_tokens": self.token_budget,
            "block_size": self.block_tokens,
            "kv_cache_dtype": self.kv_dtype,
            # vLLM keeps one block for itself
            "num_gpu_blocks_override": self.kv_tokens // self.block_tokens + 1,
            "gpu_memory_utilization": self.memory_share,
            "enforce_eager": self.eager,
            "enable_prefix_caching": False,
            "scheduling_policy": "priority",
            "async_scheduling": False,
            # In the engine's process: a worker process ("mp") would spin on a second core
            "distributed_executor_backend": "uni",
            "disable_log_stats": True,
        }
        if self.swap_bits:
            arguments["kv_transfer_config"] = host_swap(self.swap_bits, self.host_tokens)
        return arguments

    def as_json(self) -> dict[str, Any]:
        """Return the fields, for a record."""
        return self.model_dump()


def host_swap(bits: int, host_tokens: int) -> dict[str, Any]:
    """Return vLLM's ``kv_transfer_config`` for ``connector.HostSwap``."""
    return {
        "kv_connector": "HostSwap",
        "kv_connector_module_path": "ssjf.harness.connector",
        "kv_role": "kv_both",
        "kv_load_failure_policy": "recompute",  # vLLM's default fails the request
        "kv_connector_extra_config": {"bits": bits, "host_tokens": host_tokens},
    }


@cache
def deployments() -> dict[str, Deployment]:
    """Return the deployments that come with the package, by name."""
    path = Path(str(resources.files("ssjf.harness") / "deployments.toml"))
    tables = read_toml("deployment", path)
    return {name: _validated(name, table, path) for name, table in tables.items()}


def deployment(name: str) -> Deployment:
    """Return a deployment by name, or from a path ending in ``.toml``."""
    if name.endswith(".toml"):
        return _validated(Path(name).stem, read_toml("deployment", Path(name)), Path(name))
    if name not in deployments():
        raise unknown("deployment", name, deployments())
    return deployments()[name]


def _validated(name: str, table: dict[str, Any], path: Path) -> Deployment:
    return validated(Deployment, {"name": name, **table}, f"deployment file {path}")
