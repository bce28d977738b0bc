"""The linear map into the space that is searched: alike are prompts whose answers are as long.

Metric learning for kernel regression (Weinberger and Tesauro 2007), here with cosines: the map
under which a training row's length is best the weighted mean of all others'. Needs PyTorch.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import mse_loss, normalize

from ssjf.proxy.retrieval.config import RetrievalConfig
from ssjf.request import FloatArray

MOST_ROWS = 2**14  # beyond, so many drawn at random teach it: each step compares with all
STEPS, BATCHES = 8, (32, 512)  # least steps of an epoch, and the batches within which they are made
LEARNING_RATE, DROPOUT = 2e-3, 0.2
SHARPER = 2  # so many times lower is the temperature it is taught at


@dataclass(frozen=True)
class Learnt:
    """``weights``: shape (hidden, dimensions), float32. ``epoch``: after which they were best;
    ``errors``: the mean squared error of validation logarithms before it and after each."""

    weights: np.ndarray
    epoch: int
    errors: list[float]


def learnt(
    train: tuple[np.ndarray, FloatArray], held: tuple[np.ndarray, FloatArray],
    config: RetrievalConfig,
) -> Learnt:  # fmt: skip
    """The map of (vectors, logarithms of lengths) that errs least on the held rows.

    It begins as the principal directions of the training vectors, which keep cosines best. In each
    step it must do without a share DROPOUT of the encoder's dimensions.
    """
    order = torch.Generator().manual_seed(config.seed)
    vectors, logs = (torch.tensor(each, dtype=torch.float32) for each in train)
    some = torch.randperm(len(logs), generator=order)[:MOST_ROWS]
    vectors, logs = vectors[some], logs[some]
    asked, answers = (torch.tensor(each, dtype=torch.float32) for each in held)
    map_ = torch.linalg.svd(vectors, full_matrices=False).Vh[: config.dimensions].T.contiguous()
    optimizer = torch.optim.Adam([map_.requires_grad_()], lr=LEARNING_RATE)
    batch = min(max(len(logs) // STEPS, BATCHES[0]), BATCHES[1])
    cold = config.temperature / SHARPER
    best, errors = map_.detach().numpy().copy(), []
    for epoch in range(config.epochs + 1):
        if epoch:
            for rows in torch.randperm(len(logs), generator=order).split(batch):
                kept = torch.rand(vectors.shape[1], generator=order) >= DROPOUT
                space = normalize((vectors * kept) @ map_)
                loss = mse_loss(_others(space, logs, rows, cold), logs[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with torch.no_grad():
            found = _served(normalize(asked @ map_), normalize(vectors @ map_), logs, config)
            errors.append(float(mse_loss(found, answers)))
        if errors[-1] <= min(errors):
            best = map_.detach().numpy().copy()
    return Learnt(best, int(np.argmin(errors)), errors)


def _others(space: Tensor, logs: Tensor, rows: Tensor, temperature: float) -> Tensor:
    """Of each of the rows the weighted mean of all others' logarithms, shape (b,)."""
    near = space[rows] @ space.T / temperature
    near[torch.arange(len(rows)), rows] = -torch.inf
    return near.softmax(dim=1) @ logs


def _served(asked: Tensor, space: Tensor, logs: Tensor, config: RetrievalConfig) -> Tensor:
    """The weighted mean of the nearest, shape (b,), as it will be predicted."""
    near, at = (asked @ space.T).topk(min(config.neighbours, len(logs)))
    return ((near / config.temperature).softmax(dim=1) * logs[at]).sum(dim=1)
