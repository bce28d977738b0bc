"""The encoder and its head as one PyTorch module."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ssjf.proxy.encoder.config import EncoderConfig


class Network(nn.Module):
    """Token ids to a vector, and the vector to what the head and the helping lengths say.

    outputs: numbers of the head; also: numbers for lengths that only help to learn; llms: how
    many LLMs it can be told of, as a one-hot beside the vector.
    """

    def __init__(self, model: Any, config: EncoderConfig, outputs: int, also: int, llms: int):
        super().__init__()
        self.model = model
        self.pooling = config.pooling
        sizes = [model.config.hidden_size + llms, *config.hidden]
        layers: list[nn.Module] = []
        for size, following in pairwise(sizes):
            layers += [nn.Linear(size, following), nn.ReLU(), nn.Dropout(config.dropout)]
        self.head = nn.Sequential(*layers, nn.Linear(sizes[-1], outputs + also))

    def vectors(self, ids: Tensor, mask: Tensor) -> Tensor:
        """What the encoder makes of the tokens, shape (b, hidden)."""
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        if self.pooling == "cls":
            return states[:, 0]
        weights = mask[..., None].to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1)

    def said(self, vectors: Tensor, llm: Tensor) -> Tensor:
        """What the head says of vectors; llm has shape (b, llms)."""
        return self.head(torch.cat([vectors, llm.to(vectors.dtype)], dim=1)).float()

    def forward(self, ids: Tensor, mask: Tensor, llm: Tensor) -> Tensor:
        """Outputs, shape (b, outputs + also)."""
        return self.said(self.vectors(ids, mask), llm)
