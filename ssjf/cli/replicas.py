"""``ssjf serve MODEL --replicas N``: replicas on Ray Serve."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from ssjf.errors import InputError

if TYPE_CHECKING:  # pydantic takes long to import
    from ssjf.serving.options import ServeOptions

# The environment before the command line limited the threads of this process: those of a server are
# its user's matter
ENVIRONMENT = dict(os.environ)
OF_VLLM = ("VLLM_", "HF_", "OMP_", "NCCL_", "TORCH_", "PYTORCH_")
NEEDED = "replicas"
OPTIONS: dict[str, tuple[type, str, str]] = {
    NEEDED: (int, "N", "So many on Ray Serve (extra ray), behind one address."),
    "router": (str, "NAME", "What chooses a replica: jsq (the default) or one of docs/cluster.md."),
    "gpus": (float, "N", "Of each replica; by default 1 where the Ray cluster has any."),
    "autoscaling": (str, "JSON", "Ray Serve's autoscaling_config; it begins with --replicas."),
    "wait_seconds": (float, "S", "How long a request waits for a replica to come back: 600."),
    "ray": (str, "ADDRESS", "The Ray cluster; else $RAY_ADDRESS, or a local one, ended with this."),
}


def replica_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options above."""
    for name, (kind, metavar, text) in reversed(OPTIONS.items()):
        flag = f"--{name.replace('_', '-')}"
        command = click.option(flag, name, type=kind, metavar=metavar, help=text)(command)
    return command


def taken(own: dict[str, Any]) -> dict[str, Any]:
    """Remove the options above from all options; return those that were given."""
    values = {name: own.pop(name) for name in OPTIONS}
    given = {name: value for name, value in values.items() if value is not None}
    if given and NEEDED not in given:
        raise InputError(f"--{next(iter(given)).replace('_', '-')} needs --{NEEDED}")
    return given


def serve_replicas(
    model: str, vllm_options: Sequence[str], chosen: "ServeOptions", *, ray: str = "",
    autoscaling: str | None = None, gpus: float | None = None, **given: Any,
) -> None:  # fmt: skip
    """Serve until an interrupt; InputError for bad input."""
    from ssjf.config import validated
    from ssjf.experiments.ray_grid import connected
    from ssjf.serving import predictor
    from ssjf.serving.replicas.options import ReplicaOptions, split_address

    predictor.check(chosen)
    kept, host, port = split_address(vllm_options)
    scaled = None if autoscaling is None else _table(autoscaling)
    variables = {k: v for k, v in ENVIRONMENT.items() if k.startswith(OF_VLLM)}
    values = {"model": model, "vllm_options": kept, "serve": chosen, "autoscaling": scaled,
              "variables": variables, **given}  # fmt: skip
    options = validated(ReplicaOptions, values)
    is_local = (ray or os.environ.get("RAY_ADDRESS") or "local") == "local"
    cores = max(os.cpu_count() or 1, options.most_replicas + 1)
    with connected(ray, cores):
        import ray as cluster

        from ssjf.serving.replicas.app import run

        if gpus is None:
            gpus = float(cluster.cluster_resources().get("GPU", 0) > 0)
        run(options.model_copy(update={"gpus": gpus}), host, port, is_local)


def _table(text: str) -> Mapping[str, Any]:
    try:
        table = json.loads(text)
    except ValueError:
        table = None
    if not isinstance(table, dict):
        raise InputError(f"autoscaling is {text!r}; it must be a JSON object")
    return table
