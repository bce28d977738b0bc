"""Where a training stands, on disk: whole or not there, and read without pickle."""

import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

STATE, PROGRESS = "state.safetensors", "progress.json"


@dataclass
class Progress:
    """Steps done in a phase and an epoch of it, and the best validation score so far."""

    phase: str = "tuning"
    epoch: int = 0
    step: int = 0
    best: float = float("-inf")
    since_best: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


def save(folder: Path, progress: Progress, tensors: dict[str, Any]) -> None:
    """Write a checkpoint and drop the one before."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    total = f"{progress.phase}-{progress.epoch:04d}-{progress.step:08d}"
    partial, whole = folder / f".tmp-{total}", folder / total
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    save_file({name: each.contiguous() for name, each in tensors.items()}, partial / STATE)
    (partial / PROGRESS).write_text(json.dumps(asdict(progress)))
    shutil.rmtree(whole, ignore_errors=True)
    os.replace(partial, whole)
    for other in folder.iterdir():
        if other != whole:
            shutil.rmtree(other, ignore_errors=True)


def load(folder: Path) -> tuple[Progress, dict[str, Any]] | None:
    """The newest whole checkpoint, if there is one."""
    from safetensors.torch import load_file

    found = [p for p in folder.glob("[!.]*") if p.is_dir()] if folder.is_dir() else []
    if not found:
        return None
    newest = max(found, key=lambda path: (path / PROGRESS).stat().st_mtime_ns)
    return Progress(**json.loads((newest / PROGRESS).read_text())), load_file(newest / STATE)


def packed(net: Any, best: dict[str, Any], optimizer: Any) -> dict[str, Any]:
    """The tensors of a network, of the best it has been and of its optimizer, by name."""
    from torch import as_tensor

    tensors = {f"net.{name}": each for name, each in net.state_dict().items()}
    tensors |= {f"best.{name}": each for name, each in best.items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"opt.{i}.{name}": as_tensor(each) for name, each in state.items()}
    return tensors


def unpacked(tensors: dict[str, Any], net: Any, optimizer: Any) -> dict[str, Any]:
    """The inverse of ``packed``: fills the network and its optimizer, returns the best."""
    net.load_state_dict(part(tensors, "net"))
    state: dict[int, dict[str, Any]] = {}
    for name, each in part(tensors, "opt").items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = each
    told = optimizer.state_dict()
    optimizer.load_state_dict({"state": state, "param_groups": told["param_groups"]})
    return part(tensors, "best")


def part(tensors: dict[str, Any], name: str) -> dict[str, Any]:
    """``net``, ``best`` or ``opt`` of what was packed."""
    return {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
