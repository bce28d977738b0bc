"""What a model computes for each token, to hold a run with swapping against one without.

Runs where vLLM is installed. Hooks read what passes and change nothing.
"""

from typing import Any

import numpy as np


class Probe:
    """Attention output of every layer and logits of each token that is said, until the run ends."""

    def __init__(self, core: Any) -> None:
        self._runner = core.model_executor.driver_worker.worker.model_runner
        self._model = self._runner.model
        self._step: list[Any] = []  # attention outputs of the layers, of this step
        self._logits: Any = None
        self._rows: list[tuple[int, int]] = []  # request, tokens it has said
        self._seen: set[tuple[int, int]] = set()
        self._kept: dict[str, list[np.ndarray]] = {"attention": [], "logits": []}
        self._hooks = [
            layer.self_attn.attn.register_forward_hook(self._attended)
            for layer in self._model.model.layers
        ]
        self._compute = self._model.compute_logits
        self._model.compute_logits = self._computed

    def _attended(self, _module: Any, _inputs: Any, output: Any) -> None:
        self._step.append(output.detach().float().clone())

    def _computed(self, *arguments: Any, **options: Any) -> Any:
        found = self._compute(*arguments, **options)
        self._logits = found.detach().float().cpu().numpy()
        return found

    def keep(self, requests: dict[str, int]) -> None:
        """After a step: the rows of the requests whose last known token it computed."""
        if not self._step:
            return
        batch = self._runner.input_batch
        ends = self._runner.query_start_loc.np[1 : batch.num_reqs + 1]
        for at, name in enumerate(batch.req_ids[: len(ends)]):
            request = self._runner.requests[name]
            key = requests[name], len(request.output_token_ids)
            if key in self._seen:  # a part of a prompt, or of what is computed again
                continue
            self._seen.add(key)
            self._rows.append(key)
            row = int(ends[at]) - 1
            layers = [layer[row].flatten().cpu().numpy() for layer in self._step]
            self._kept["attention"].append(np.stack(layers))
            self._kept["logits"].append(self._logits[at])
        self._step = []

    def arrays(self) -> dict[str, np.ndarray]:
        """Of m rows: request and token (m, 2), attention (m, layers, width), logits (m, v)."""
        for hook in self._hooks:
            hook.remove()
        self._model.compute_logits = self._compute
        return {"probe_rows": np.array(self._rows, np.int32)} | {
            f"probe_{name}": np.stack(rows).astype(np.float32) for name, rows in self._kept.items()
        }


def swapping_totals() -> dict[str, float]:
    """What the connector of this process has copied so far; nothing where there is none."""
    from vllm.distributed.kv_transfer import get_kv_transfer_group, has_kv_transfer_group

    if not has_kv_transfer_group():
        return {}
    worker = get_kv_transfer_group()
    return {
        "out": worker.copied["out"],
        "back": worker.copied["back"],
        "out_seconds": worker.seconds["out"],
        "back_seconds": worker.seconds["back"],
        "left": len(worker._host),
    }
