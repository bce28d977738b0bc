"""Swap the KV of vLLM's preempted requests out to host memory and back in.

    --kv-transfer-config '{"kv_connector": "HostSwap", "kv_role": "kv_both",
        "kv_connector_module_path": "ssjf.harness.connector", "kv_load_failure_policy": "recompute",
        "kv_connector_extra_config": {"bits": 8, "host_tokens": 1000000}}'

vLLM v1 frees what a preempted request has computed and computes it again. This connector copies
the request's blocks out before they are given away, quantised to 8 bits (or unchanged, ``bits``
16), and has vLLM load them when the request is scheduled again. Host memory is bounded; where it is
full, or a copy is lost, vLLM computes again as it would without ("fail", vLLM's default, would
end the request with an error). No fork: a public base class (``KVConnectorBase_V1``). A step waits
for its copies: on a CPU there is nothing to overlap with. Importing this module imports vLLM.
"""

import logging
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
)

from ssjf.harness.quantise import Quantised, quantise, restore

LOG = logging.getLogger(__name__)
BITS = (8, 16)


@dataclass
class Copies(KVConnectorMetadata):
    """The copies of a step, blocks by request, and the requests whose copies may be dropped."""

    out: dict[str, list[int]] = field(default_factory=dict)
    back: dict[str, list[int]] = field(default_factory=dict)
    forget: list[str] = field(default_factory=list)


class HostSwap(KVConnectorBase_V1):
    """Both sides of the connector: vLLM creates one for its scheduler and one for its worker."""

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        options = self._kv_transfer_config
        self.bits = int(options.get_from_extra_config("bits", 8))
        self.host_tokens = int(options.get_from_extra_config("host_tokens", 10**9))
        if self.bits not in BITS:
            raise ValueError(f"bits is {self.bits}; it must be 8 or 16")
        # the scheduler's side
        self._tables: dict[str, list[int]] = {}  # blocks of running requests
        self._computed: dict[str, int] = {}  # tokens of running requests
        self._swapped: dict[str, int] = {}  # tokens of requests that were copied out
        self._back: dict[str, list[int]] = {}
        # the worker's side
        self._layers: dict[str, torch.Tensor] = {}
        self._host: dict[str, dict[str, Quantised | torch.Tensor]] = {}
        self._lost: set[int] = set()
        self.seconds = {"out": 0.0, "back": 0.0}
        self.copied = {"out": 0, "back": 0}  # requests

    # --- the scheduler's side ------------------------------------------------------------------

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int):
        """Return how many more computed tokens the copy of a request has; 0 without a copy."""
        kept = self._swapped.get(request.request_id, 0)
        return max(0, min(kept, request.num_tokens - 1) - num_computed_tokens), False

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        """Note the blocks that a scheduled request's copy goes into."""
        if num_external_tokens > 0:
            self._back[request.request_id] = list(blocks.get_block_ids()[0])

    def build_connector_meta(self, scheduler_output: Any) -> Copies:
        """Return this step's copies; also note which blocks every request holds."""
        copies = Copies(back=self._back)
        self._back = {}
        for name in copies.back:
            self._swapped.pop(name, None)
        for name in scheduler_output.preempted_req_ids or ():
            table, tokens = self._tables.pop(name, []), self._computed.pop(name, 0)
            if 0 < tokens <= self.host_tokens - sum(self._swapped.values()):
                self._swapped[name] = tokens
                copies.out[name] = table[: -(-tokens // self._vllm_config.cache_config.block_size)]
        for name in scheduler_output.finished_req_ids:
            self._tables.pop(name, None)
            self._computed.pop(name, None)
            if self._swapped.pop(name, None) is not None:
                copies.forget.append(name)
        self._follow(scheduler_output)
        return copies

    def _follow(self, step: Any) -> None:
        for new in step.scheduled_new_reqs:
            self._tables[new.req_id] = list(new.block_ids[0])
            self._computed[new.req_id] = new.num_computed_tokens
        cached = step.scheduled_cached_reqs
        for i, name in enumerate(cached.req_ids):
            added = cached.new_block_ids[i]
            before = [] if name in cached.resumed_req_ids else self._tables.get(name, [])
            self._tables[name] = before + (list(added[0]) if added else [])
            self._computed[name] = cached.num_computed_tokens[i]
        for name, tokens in step.num_scheduled_tokens.items():
            self._computed[name] += tokens

    # --- the worker's side ---------------------------------------------------------------------

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        """Take the KV memory of each layer, shape (blocks, heads, tokens, 2 * size)."""
        self._layers = kv_caches

    def handle_preemptions(self, kv_connector_metadata: KVConnectorMetadata) -> None:
        """Copy out, before the blocks are another request's."""
        assert isinstance(kv_connector_metadata, Copies)
        started = time.perf_counter()
        for name in kv_connector_metadata.forget:
            self._host.pop(name, None)
        for name, table in kv_connector_metadata.out.items():
            try:
                self._keep(name, table)
            except Exception as error:  # no room, most likely: vLLM computes it again
                LOG.warning("a preempted request is not kept (%s)", error)
        self.seconds["out"] += time.perf_counter() - started

    def _keep(self, name: str, table: list[int]) -> None:
        at = torch.tensor(table)
        # complete before it is kept: half a copy is useless
        self._host[name] = {layer: self.kept(kv[at]) for layer, kv in self._layers.items()}
        self.copied["out"] += 1

    def kept(self, blocks: torch.Tensor) -> Quantised | torch.Tensor:
        """Return what is kept of some blocks of a layer in host memory."""
        return quantise(blocks, _keys_first(blocks)) if self.bits == 8 else blocks.cpu()

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        """Copy back, before the step reads them."""
        copies = self._get_connector_metadata()
        assert isinstance(copies, Copies)
        started = time.perf_counter()
        for name, table in copies.back.items():
            self._load(name, table)
        self.seconds["back"] += time.perf_counter() - started

    def _load(self, name: str, table: list[int]) -> None:
        kept = self._host.pop(name, None)
        if kept is None:
            self._lost |= set(table)  # vLLM computes them again
            return
        for layer, kv in self._layers.items():
            blocks = kept[layer]
            if isinstance(blocks, Quantised):
                blocks = restore(blocks, _keys_first(kv), kv)
            kv[torch.tensor(table[: len(blocks)])] = blocks.to(kv.device)
        self.copied["back"] += 1

    def get_block_ids_with_load_errors(self) -> set[int]:
        """Return the blocks whose copies were lost since the last call."""
        lost, self._lost = self._lost, set()
        return lost

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Do nothing: loads have been waited for."""

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any):
        """Do nothing: nothing is copied before a request is preempted."""

    def wait_for_save(self) -> None:
        """Do nothing: copies have been waited for."""


def _keys_first(blocks: torch.Tensor) -> bool:
    """Does a block hold all its keys before its values (vLLM's CPU back end), or token by token?"""
    return blocks.device.type == "cpu"
