"""What an engine is started with: named deployments and a user's own from TOML.

A deployment bounds what its runs may ask for: fewer slots, a smaller token budget and fewer KV
blocks are set run by run in the same engine, as ``driver`` does it.
"""

from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from ssjf.engine.vllm.models import SHAPES
from ssjf.errors import InputError, unknown
from ssjf.workload.options import read_toml


@dataclass(frozen=True)
class Deployment:
    """A model shape on a device, with the largest configuration its runs may use.

    shape: one of ``models.SHAPES``. slots: vLLM ``max_num_seqs``. token_budget: vLLM
    ``max_num_batched_tokens``. kv_tokens: KV memory in tokens. block_tokens: tokens per KV block
    (the CPU back end takes multiples of 32). context_tokens: vLLM ``max_model_len``.
    memory_share: of the device's memory that vLLM may take (on a CPU only checked).
    eager: no CUDA graphs.
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

    def engine_arguments(self, model: Path) -> dict[str, Any]:
        """Arguments of ``vllm.EngineArgs``: only those that 0.26 and 0.32 both have."""
        return {
            "model": str(model),
            "skip_tokenizer_init": True,
            "load_format": "auto" if (model / "model.safetensors").exists() else "dummy",
            "dtype": "bfloat16",
            "max_model_len": self.context_tokens,
            "max_num_seqs": self.slots,
            "max_num_batched_tokens": self.token_budget,
            "block_size": self.block_tokens,
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

    def as_json(self) -> dict[str, Any]:
        """The fields, for a record."""
        return asdict(self)


@cache
def deployments() -> dict[str, Deployment]:
    """The deployments that come with the package, by name."""
    folder = resources.files("ssjf.engine.vllm") / "deployments"
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
