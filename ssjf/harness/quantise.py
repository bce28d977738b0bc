"""Quantise KV blocks to 8 bits, half the bytes of bfloat16, while a request is swapped out.

There is a scale per block, head, and keys or values: an outlier costs precision in its block only.
"""

from typing import NamedTuple

import torch
from torch import Tensor

MOST = 127


class Quantised(NamedTuple):
    """Values in -127 … 127, shape (blocks, heads, 2, n), and their scales (blocks, heads, 2, 1)."""

    values: Tensor
    scales: Tensor


def halves(blocks: Tensor, keys_first: bool) -> Tensor:
    """Separate keys and values of a layer's blocks, shape (blocks, heads, tokens, 2 * size).

    Returns shape (blocks, heads, 2, tokens * size). ``keys_first``: a block's memory holds all its
    keys before its values, as in vLLM's CPU back end; else each token's row holds both.
    """
    if keys_first:
        return blocks.flatten(2).unflatten(2, (2, -1))
    return blocks.unflatten(3, (2, -1)).transpose(2, 3).flatten(3)


def joined(parts: Tensor, keys_first: bool, tokens: int) -> Tensor:
    """Invert ``halves``."""
    if keys_first:
        return parts.flatten(2).unflatten(2, (tokens, -1))
    return parts.unflatten(3, (tokens, -1)).transpose(2, 3).flatten(3)


def quantise(blocks: Tensor, keys_first: bool) -> Quantised:
    """Round to the nearest of 255 values between minus and plus the largest of each part."""
    parts = halves(blocks, keys_first).float()
    scales = parts.abs().amax(3, keepdim=True) / MOST
    values = torch.round(parts / scales.clamp_min(1e-30)).to(torch.int8)
    return Quantised(values.cpu(), scales.cpu())


def restore(kept: Quantised, keys_first: bool, like: Tensor) -> Tensor:
    """Return the blocks, with the tokens per block, type and device of ``like``."""
    parts = kept.values.to(like.device).float() * kept.scales.to(like.device)
    return joined(parts, keys_first, like.shape[2]).to(like.dtype)
