"""A network run on training rows: on a batch to learn from, or on many rows to judge it by."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssjf.proxy.encoder.config import EncoderConfig
from ssjf.proxy.encoder.examples import Examples
from ssjf.proxy.encoder.heads import RANKERS
from ssjf.proxy.encoder.network import Network
from ssjf.request import FloatArray, IntArray

READ_AT_ONCE = 128  # rows that are judged
LLM_DROPPED = 0.1  # share of rows not told their LLM, so that an unknown one can be served
RANKER_PARTS = 4


class Forward:
    """Runs a network on examples; once its encoder is frozen, the head alone."""

    def __init__(self, net: Network, examples: Examples, config: EncoderConfig):
        self.net, self.examples, self.config = net, examples, config
        self.vectors: Tensor | None = None

    def taught(self, rows: IntArray) -> Tensor:
        """What the network says of a batch, shape (b, outputs + also), with its gradient."""
        self.net.train()
        return self._said(rows, dropped=LLM_DROPPED)

    def judged(self, rows: IntArray) -> FloatArray:
        """What the network says of any number of rows, shape (n, outputs + also)."""
        return self._over(rows, self._said)

    def freeze_encoder(self) -> None:
        """Read every row once: from here on only the head changes."""
        self.net.requires_grad_(False)
        self.net.head.requires_grad_(True)
        self.vectors = torch.from_numpy(self._over(np.arange(len(self.examples.ids)), self._read))

    def _said(self, rows: IntArray, dropped: float = 0.0) -> Tensor:
        device = self._device()
        llm = self.examples.llm[torch.from_numpy(rows)].to(device)
        if dropped and llm.shape[1]:
            llm = llm * (torch.rand(len(rows), 1, device=device) >= dropped)
        if self.vectors is not None:
            return self.net.said(self.vectors[torch.from_numpy(rows)].to(device), llm)
        # A ranker's batch holds short and long prompts: read in parts, little of it is padding.
        parts = RANKER_PARTS if self.config.head in RANKERS else 1
        order = self._by_length(rows)
        said = []
        for part in np.array_split(order, min(parts, len(order))):
            ids, mask = (each.to(device) for each in self.examples.padded(rows[part]))
            with self._precision(device.type):
                said.append(self.net(ids, mask, llm[torch.from_numpy(part)]))
        return torch.cat(said)[torch.from_numpy(np.argsort(order, kind="stable"))]

    def _read(self, rows: IntArray) -> Tensor:
        device = self._device()
        ids, mask = (each.to(device) for each in self.examples.padded(rows))
        with self._precision(device.type):
            return self.net.vectors(ids, mask).float()

    def _over(self, rows: IntArray, read: Callable[[IntArray], Tensor]) -> FloatArray:
        """What ``read`` gives for rows, in their order, read in batches of like length."""
        order = self._by_length(rows)
        self.net.eval()
        with torch.no_grad():
            parts = [
                read(rows[order[i : i + READ_AT_ONCE]]).cpu().numpy()
                for i in range(0, len(order), READ_AT_ONCE)
            ]
        return np.concatenate(parts)[np.argsort(order, kind="stable")]

    def _by_length(self, rows: IntArray) -> IntArray:
        return np.argsort([len(self.examples.ids[row]) for row in rows], kind="stable")

    def _device(self) -> torch.device:
        return next(self.net.parameters()).device

    def _precision(self, device: str) -> Any:
        return torch.autocast(device, torch.bfloat16, enabled=self.config.precision == "bfloat16")
