"""What a decoder model's sizes are."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Layers, width, attention heads, key-value heads, inner width, tokens known, context."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    inner: int
    vocabulary: int
    context_tokens: int
