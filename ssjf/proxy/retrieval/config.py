"""What can be chosen of a retrieval proxy, and within which limits."""

from dataclasses import dataclass

from ssjf.proxy.limits import check, check_sizes

CHOICES = {"pooling": ("cls", "mean"), "average": ("logs", "tokens")}
LIMITS = {
    "longest_tokens": (8, 8192), "dimensions": (0, 8192), "epochs": (1, 1000),
    "neighbours": (1, 1000), "temperature": (1e-6, 1e6), "least_similarity": (-1, 1),
    "capacity": (1, 10**7), "bands": (1, 100), "seed": (0, 2**31 - 1),
}  # fmt: skip


@dataclass(frozen=True)
class RetrievalConfig:
    """A data base of past prompts; see ``CHOICES`` and ``LIMITS``. All of it is ours.

    What is set here erred least on the validation split of ``alpaca-vicuna``.

    encoder: a backbone that is not tuned (``minilm``, another name of ``backbone``, a hub id or a
        folder), or the folder of a trained encoder proxy. Of the former ``pooling``,
        ``longest_tokens`` and ``int8`` can be chosen; the latter reads as it was trained to.
    dimensions: at most so many has the space that is searched, onto which a linear map learnt
        from the training rows (in at most ``epochs``) brings the encoder's vectors; 0 searches
        these themselves.
    neighbours: how many are retrieved. temperature: a neighbour weighs exp(cosine / temperature).
    average: what the weights average, logarithms of lengths or lengths.
    least_similarity: below this cosine of the nearest the MLP, of layers ``hidden``, answers.
    capacity: only the last so many prompts are remembered.
    """

    encoder: str = "minilm"
    pooling: str = "mean"
    longest_tokens: int = 256
    int8: bool = True
    dimensions: int = 128
    epochs: int = 10
    neighbours: int = 50
    temperature: float = 0.1
    average: str = "logs"
    least_similarity: float = 0.55
    hidden: tuple[int, ...] = (128,)
    capacity: int = 10**6
    bands: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.hidden, list):  # TOML and JSON have lists
            object.__setattr__(self, "hidden", tuple(self.hidden))
        check(self, LIMITS, CHOICES)
        check_sizes("hidden", self.hidden)
