"""What can be chosen of the baselines' training, and within which limits."""

from dataclasses import dataclass

from ssjf.proxy.limits import check

LIMITS = {
    "ridge": (1e-6, 1e6), "least_prompts": (1, 10**6), "most_terms": (1, 2**24), "bands": (1, 100),
}  # fmt: skip


@dataclass(frozen=True)
class TfidfRidgeConfig:
    """Terms are kept that ``least_prompts`` prompts hold, at most the ``most_terms`` of most."""

    ridge: float = 1.0
    least_prompts: int = 2
    most_terms: int = 2**17
    bands: int = 5

    def __post_init__(self) -> None:
        check(self, LIMITS)


@dataclass(frozen=True)
class PromptLengthConfig:
    """``bands`` of predicted length have residuals of their own."""

    bands: int = 5

    def __post_init__(self) -> None:
        check(self, LIMITS)


@dataclass(frozen=True)
class ConstantConfig:
    """There is nothing to choose."""
