"""The loss of each head; PyTorch is imported when a loss is called.

``out`` is of shape (b, outputs). ``draws`` (b, m) are logarithms of the lengths of m answers to
each prompt; a loss is the mean over prompts and draws, except of the rankers, which order the
prompts of a batch by their mean logarithm.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ssjf.proxy.conformal import LEVELS
from ssjf.proxy.encoder.heads import Scale

MARGIN = 1.0
LEAST_RATIO = 1.2  # pairs nearer than that are noise between two answers to one prompt
Tensor = Any


def _l1(out: Tensor, draws: Tensor, scale: Scale) -> Tensor:
    return (out[:, :1] - _standard_tokens(draws, scale)).abs().mean()


def _mse(out: Tensor, draws: Tensor, scale: Scale) -> Tensor:
    return ((out[:, :1] - _standard_tokens(draws, scale)) ** 2).mean()


def _log_mse(out: Tensor, draws: Tensor, scale: Scale) -> Tensor:
    return ((out[:, :1] - _standard(draws, scale)) ** 2).mean()


def _nll(out: Tensor, draws: Tensor, scale: Scale, weights: Tensor = None) -> Tensor:
    from torch.nn.functional import cross_entropy

    ids = _classes(draws, scale)
    losses = [cross_entropy(out, ids[:, i], weights) for i in range(ids.shape[1])]
    return sum(losses[1:], losses[0]) / len(losses)


def _ordinal_l1(out: Tensor, draws: Tensor, scale: Scale) -> Tensor:
    return (out[:, :1] - _classes(draws, scale)).abs().mean()


def _ordinal_mse(out: Tensor, draws: Tensor, scale: Scale) -> Tensor:
    return ((out[:, :1] - _classes(draws, scale)) ** 2).mean()


def _pairwise(out: Tensor, draws: Tensor, scale: Scale) -> Tensor:
    """Hinge loss over the batch's pairs whose lengths are at least 1.2x apart."""
    logs, score = draws.mean(dim=1), out[:, 0]
    longer = (logs[:, None] - logs[None, :]) >= np.log(LEAST_RATIO)
    hinge = (MARGIN - (score[:, None] - score[None, :])).clamp(min=0)
    return (hinge * longer).sum() / longer.sum().clamp(min=1)


def _listmle(out: Tensor, draws: Tensor, scale: Scale) -> Tensor:
    """Minus the log-likelihood of the batch's true order (Xia et al. 2008), longest first."""
    score = out[:, 0][draws.mean(dim=1).argsort(descending=True)]
    later = score.flip(0).logcumsumexp(0).flip(0)
    return (later - score).mean()


def _pinball(out: Tensor, draws: Tensor, scale: Scale) -> Tensor:
    at = out.new_tensor(LEVELS)
    short = _standard(draws, scale)[:, :, None] - out[:, None, : len(LEVELS)]
    return 4 * (short * at).maximum(short * (at - 1)).mean()  # about as large as an MSE


def _standard(draws: Tensor, scale: Scale) -> Tensor:
    return (draws - float(scale.log[0])) / float(scale.log[1])


def _standard_tokens(draws: Tensor, scale: Scale) -> Tensor:
    return (draws.exp() - float(scale.tokens[0])) / float(scale.tokens[1])


def _classes(draws: Tensor, scale: Scale) -> Tensor:
    import torch

    edges = torch.as_tensor(scale.edges, dtype=draws.dtype, device=draws.device)
    # Lengths are whole tokens: rounding of logarithms must not move one below its edge.
    return torch.searchsorted(edges.log() - 1e-5, draws.contiguous(), right=True)


LOSSES: dict[str, Callable[[Tensor, Tensor, Scale], Tensor]] = {
    "l1": _l1, "mse": _mse, "log-mse": _log_mse, "3-class": _nll, "5-class": _nll,
    "ordinal-l1": _ordinal_l1, "ordinal-mse": _ordinal_mse, "pairwise": _pairwise,
    "listmle": _listmle, "quantiles": _pinball,
}  # fmt: skip


def loss_of(head: str, class_weights: bool) -> Callable[[Tensor, Tensor, Scale], Tensor]:
    """The loss of a head; with weights, a class counts as one over its share of the rows."""
    if not (class_weights and head in ("3-class", "5-class")):
        return LOSSES[head]

    def weighted(out: Tensor, draws: Tensor, scale: Scale) -> Tensor:
        shares = np.maximum(scale.class_shares, 1e-9)
        weights = out.new_tensor(1 / shares / (1 / shares).sum() * len(shares))
        return _nll(out, draws, scale, weights)

    return weighted
