"""What an engine is started with: named deployments and a user's own from TOML.

A deployment bounds what its runs may ask for: fewer slots, a smaller token budget and fewer KV
blocks are set run by run in the same engine, as ``driver`` does it.
"""

from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from ssjf.config import read_toml
from ssjf.errors import InputError, unknown
from ssjf.harness.models import SHAPES

KV_DTYPES = ("auto", "fp8")
SWAP_BITS = (0, 8, 16)
CLOCKS = ("wall", "cpu")


@dataclass(frozen=True)
class Deployment:
    """A model shape on a device, with the largest configuration its runs may use.

    shape: one of ``models.SHAPES``. slots: vLLM ``max_num_seqs``. token_budget: vLLM
    ``max_num_batched_tokens``. kv_tokens: KV memory in tokens. block_tokens: tokens per KV block
    (the CPU back end takes multiples of 32). context_tokens: vLLM ``max_model_len``.
    memory_share: of the device's memory that vLLM may take (on a CPU only checked).
    eager: no CUDA graphs.
    kv_dtype: vLLM ``kv_cache_dtype``; ``fp8`` holds twice the tokens of bfloat16 in the same bytes.
    swap_bits: 0 computes a preempted request again, as vLLM does; 8 or 16 keeps its KV in host
    memory, quantised or as it is (``connector.HostSwap``), of at most host_tokens.
    clock: ``wall``, or ``cpu``: the time that the processor gave the engine, idle time jumped
    over. For a CPU that is shared, on which real time measures the others.
    """

    name: str
    shape: str
    slots: int
    token_budget: int
    kv_tokens: int
    block_tokens: int
    context_tokens: int
    memory_share: float
    eager: bool = True
    kv_dtype: str = "auto"
    swap_bits: int = 0
    host_tokens: int = 10**9
    clock: str = "wall"

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise unknown("shape", self.shape, SHAPES)
        for name in ("slots", "token_budget", "kv_tokens", "block_tokens", "context_tokens"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise InputError(f"deployment {self.name}: {name} is {value!r}; "
                                 "it must be a whole number of at least 1")  # fmt: skip
        if not 0 < self.memory_share <= 1:
            raise InputError(f"deployment {self.name}: memory_share is {self.memory_share}; "
                             "it must be above 0 and at most 1")  # fmt: skip

        choices = {"kv_dtype": KV_DTYPES, "swap_bits": SWAP_BITS, "clock": CLOCKS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise unknown(name, str(getattr(self, name)), map(str, known))

    def engine_arguments(self, model: Path) -> dict[str, Any]:
        """Arguments of ``vllm.EngineArgs``: only those that 0.26 and 0.32 both have."""
        swapping = {"kv_transfer_config": self._swapping()} if self.swap_bits else {}
        return swapping | {
            "model": str(model),
            "skip_tokenizer_init": True,
            "load_format": "auto" if (model / "model.safetensors").exists() else "dummy",
            "dtype": "bfloat16",
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
            "distributed_executor_backend": "uni",
            "disable_log_stats": True,
        }

    def _swapping(self) -> dict[str, Any]:
        return {
            "kv_connector": "HostSwap",
            "kv_connector_module_path": "ssjf.harness.connector",
            "kv_role": "kv_both",
            "kv_load_failure_policy": "recompute",
            "kv_connector_extra_config": {"bits": self.swap_bits, "host_tokens": self.host_tokens},
        }

    def as_json(self) -> dict[str, Any]:
        """The fields, for a record."""
        return asdict(self)


@cache
def deployments() -> dict[str, Deployment]:
    """The deployments that come with the package, by name."""
    folder = resources.files("ssjf.harness") / "deployments"
    paths = [Path(str(file)) for file in folder.iterdir() if file.name.endswith(".toml")]
    return {path.stem: _read(path) for path in sorted(paths)}


def deployment(name: str) -> Deployment:
    """A deployment by name, or from a path ending in ``.toml``."""
    if name.endswith(".toml"):
        return _read(Path(name))
    if name not in deployments():
        raise unknown("deployment", name, deployments())
    return deployments()[name]


def _read(path: Path) -> Deployment:
    given = read_toml("deployment", path)
    known = [field.name for field in fields(Deployment)]
    for key in given:
        if key not in known:
            raise InputError(f"deployment file {path}: unknown key {key!r}; "
                             f"known: {', '.join(known)}")  # fmt: skip
    try:
        return Deployment(**{"name": path.stem, **given})
    except TypeError as error:  # a key is missing
        raise InputError(f"deployment file {path}: {str(error).partition('() ')[2]}") from None
