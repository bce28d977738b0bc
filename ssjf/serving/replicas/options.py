"""Options of replicas on Ray Serve, and vLLM's options for the one address before them."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, Field, field_validator

from ssjf.config import STRICT
from ssjf.errors import InputError, unknown
from ssjf.scheduler import routers
from ssjf.serving.options import POLICY, ServeOptions, additions, values
from ssjf.serving.tuner import SLOTS

OWN_TO_ONE = ("--uds", "--ssl-keyfile", "--ssl-certfile", "--headless", "--root-path")
ADDRESS = ("--host", "--port")
MOST_REPLICAS = 10_000


class ReplicaOptions(BaseModel):
    """What a Ray Serve application of this package is built from.

    vllm_options: of ``vllm serve``, for each replica. router: one of ``known_routers``. gpus: of a
    replica; 0 for vLLM on a CPU. autoscaling: Ray Serve's ``autoscaling_config``; ``replicas`` is
    then the number at first. wait_seconds: how long a request waits for a replica to come back.
    serve: the options of ``ssjf serve``. variables: of vLLM's environment, beside its node's.
    """

    model_config = STRICT

    model: Annotated[str, Field(min_length=1)]
    replicas: Annotated[int, Field(ge=1, le=MOST_REPLICAS)] = 1
    vllm_options: list[str] = Field(default_factory=list)
    router: str = "jsq"
    gpus: Annotated[float, Field(ge=0, strict=False)] = 0.0
    autoscaling: dict[str, Any] | None = None
    wait_seconds: Annotated[float, Field(ge=0, le=3600, strict=False)] = 600.0
    serve: ServeOptions = Field(default_factory=ServeOptions)
    variables: dict[str, str] = Field(default_factory=dict)

    @field_validator("router")
    @classmethod
    def _known(cls, name: str) -> str:
        if name.partition(":")[0] not in {known.partition(":")[0] for known in known_routers()}:
            raise unknown("router of replicas", name, known_routers())
        routers.router(name)
        return name

    @field_validator("vllm_options")
    @classmethod
    def _of_a_replica(cls, options: list[str]) -> list[str]:
        for name in OWN_TO_ONE:
            if values(options, name):
                raise InputError(f"{name} is of one server; with replicas, leave it out")
        if wrong := [name for name in values(options, POLICY) if name != "priority"]:
            raise InputError(f"{POLICY} is {wrong[0]!r}; length-aware order needs 'priority'")
        return options

    @property
    def of_vllm(self) -> list[str]:
        """Options of each replica's ``vllm serve``."""
        added = additions(self.vllm_options, self.serve.preempt)
        return [*self.vllm_options, POLICY, "priority", *added]

    @property
    def slots(self) -> int:
        """vLLM's max_num_seqs of a replica."""
        numbers = values(self.vllm_options, "--max-num-seqs")
        return int(numbers[-1]) if numbers and numbers[-1].isdigit() else SLOTS

    @property
    def most_replicas(self) -> int:
        """The most replicas that there may be."""
        limit = (self.autoscaling or {}).get("max_replicas", 1)
        return max(self.replicas, limit) if isinstance(limit, int) else self.replicas


def known_routers() -> tuple[str, ...]:
    """Return the routers that read only what is known of a real replica: the requests sent there
    that have not ended, and their predictions. The others read prompts, prefixes or progress."""
    plain = [routers.router(name) for name in routers.known_routers() if ":" not in name]
    counting = [router for router in plain if router.sees not in ("lengths", "starts")]
    names = [router.name for router in counting if not router.by_prefix]
    return (*names, "least-work", "two-pool:TOKENS")


def split_address(options: Sequence[str]) -> tuple[list[str], str, int]:
    """Split vLLM's options into those without ``--host`` and ``--port``, the host and the port."""
    kept, rest = [], iter(options)
    for option in rest:
        if option in ADDRESS:
            next(rest, None)  # its value
        elif option.partition("=")[0] not in ADDRESS:
            kept.append(option)
    port = (values(options, "--port") or ["8000"])[-1]
    if not port.isdigit() or not 0 < int(port) < 2**16:
        raise InputError(f"port is {port!r}; it must be a whole number from 1 to 65535")
    return kept, (values(options, "--host") or ["0.0.0.0"])[-1], int(port)
