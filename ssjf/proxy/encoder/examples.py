"""Training rows as tensors, and the batches they come in."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ssjf.proxy.encoder.heads import RANKERS
from ssjf.proxy.encoder.tokenize import Reader, one_hot
from ssjf.proxy.training import TrainingRows
from ssjf.request import IntArray

GRAIN = 8  # tokens: PyTorch keeps memory and kernels for every shape it has seen
WINDOW = 50  # batches within which rows are sorted by length, so that little is padded


@dataclass(frozen=True)
class Examples:
    """n rows: their ids, and what is known of them.

    draws: (n, m) logarithms, NaN where unknown. also: (n, a) standardised logarithms, NaN where
    unknown. llm: (n, l) one-hot. train, validation: indices; a training row may lack its draws
    and teach by ``also`` alone, a validation row has them. widest: ids of the longest row.
    """

    ids: list[IntArray]
    draws: Tensor
    also: Tensor
    llm: Tensor
    train: IntArray
    validation: IntArray
    widest: int

    @classmethod
    def of(cls, rows: TrainingRows, reader: Reader, llms: Sequence[str]) -> "Examples":
        """Only the rows of the two masks are read; the means are those of the training rows."""
        used = np.flatnonzero(rows.train | rows.validation)
        place = {row: i for i, row in enumerate(used)}
        draws = np.where(np.isnan(rows.targets[used, :1]), np.nan, rows.draws[used])
        also = rows.targets[:, 1:]
        if also.shape[1]:
            seen = also[rows.train]
            also = (also - np.nanmean(seen, axis=0)) / np.maximum(np.nanstd(seen, axis=0), 1e-6)
        taught = rows.train & ~np.isnan(rows.targets).all(axis=1)
        ids = reader.ids([rows.prompts[i] for i in used])
        return cls(
            ids,
            torch.tensor(draws, dtype=torch.float32),
            torch.tensor(also[used], dtype=torch.float32),
            torch.tensor(one_hot([rows.llms[i] if rows.llms else "" for i in used], llms)),
            np.array([place[i] for i in np.flatnonzero(taught)], np.int64),
            np.array([place[i] for i in rows.known(rows.validation)], np.int64),
            max(map(len, ids)),
        )

    def padded(self, rows: IntArray) -> tuple[Tensor, Tensor]:
        """Ids and mask of a batch, shape (b, its longest rounded up to a multiple of GRAIN)."""
        lengths = np.array([len(self.ids[row]) for row in rows])
        width = min(-(-int(lengths.max()) // GRAIN) * GRAIN, self.widest)
        ids = np.zeros((len(rows), width), np.int64)
        for place, row in enumerate(rows):
            ids[place, : lengths[place]] = self.ids[row]
        mask = np.arange(ids.shape[1]) < lengths[:, None]
        return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))

    def batches(self, size: int, head: str, seed: Sequence[int]) -> list[IntArray]:
        """The training rows in the order of an epoch; the same for the same seed.

        Rankers compare the rows of a batch, which must then differ in length too.
        """
        rng = np.random.default_rng(seed)
        rows = rng.permutation(self.train)
        if head not in RANKERS:
            width = size * WINDOW
            rows = np.concatenate(
                [self.sorted(rows[i : i + width]) for i in range(0, len(rows), width)]
            )
        found = [rows[i : i + size] for i in range(0, len(rows), size)]
        return [found[i] for i in rng.permutation(len(found))]

    def sorted(self, rows: IntArray) -> IntArray:
        """The rows by length, shortest first."""
        return rows[np.argsort([len(self.ids[row]) for row in rows], kind="stable")]
