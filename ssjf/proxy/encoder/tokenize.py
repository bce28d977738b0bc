"""From prompts to token ids: which of them an encoder reads, whatever the prompt's length."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssjf.errors import InputError
from ssjf.request import IntArray

CHARACTERS_PER_TOKEN = 16  # of a long prompt no more are looked at: a megabyte costs no more
QUARTER = 4  # head-tail reads a quarter from the front: 128 of 512


@dataclass(frozen=True)
class Reader:
    """Reads at most ``longest_tokens`` of a prompt, the encoder's own marks ([CLS], [SEP]) among
    them: the first ones (``head``), the last (``tail``) or some of both (``head-tail``).

    The SSJF authors' tail truncation drops [CLS] and still reads its position; this one keeps it.
    """

    tokenizer: Any  # tokenizers.Tokenizer
    longest_tokens: int
    cut: str
    before: tuple[int, ...]
    after: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer_json: str, longest_tokens: int, cut: str) -> "Reader":
        """A reader with the tokenizer of a ``tokenizer.json``; InputError if it is none."""
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_str(tokenizer_json)
        except Exception as error:  # the package raises no class of its own
            raise InputError(f"the tokenizer is not a tokenizer.json: {error}") from None
        tokenizer.no_truncation()
        tokenizer.no_padding()
        plain = tokenizer.encode("a", add_special_tokens=False).ids
        marked = tokenizer.encode("a").ids
        start = next(
            (i for i in range(len(marked)) if plain and marked[i : i + len(plain)] == plain), 0
        )
        return cls(
            tokenizer, longest_tokens, cut,
            tuple(marked[:start]), tuple(marked[start + len(plain) :]),
        )  # fmt: skip

    @property
    def entries(self) -> int:
        """How many different ids it may give."""
        return self.tokenizer.get_vocab_size()

    def ids(self, prompts: Sequence[str]) -> list[IntArray]:
        """The ids of each prompt, shape (its tokens,); there is at least one."""
        texts = [self._shortened(prompt) for prompt in prompts]
        encoded = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        return [self._cut(each.ids) for each in encoded]

    def _shortened(self, prompt: str) -> str:
        # Broken JSON escapes give lone surrogates, which tokenizers refuse.
        text = prompt.encode("utf-8", "replace").decode()
        most = CHARACTERS_PER_TOKEN * self.longest_tokens
        return text if len(text) <= 2 * most else f"{text[:most]} {text[-most:]}"

    def _cut(self, ids: list[int]) -> IntArray:
        room = self.longest_tokens - len(self.before) - len(self.after)
        if len(ids) > room:
            front = {"head": room, "tail": 0, "head-tail": room // QUARTER}[self.cut]
            ids = ids[:front] + ids[len(ids) - (room - front) :]
        whole = [*self.before, *ids, *self.after]
        return np.array(whole or [0], np.int64)


def one_hot(named: Sequence[str], llms: Sequence[str]) -> np.ndarray:
    """Which of the known LLMs answers each of n prompts, shape (n, llms), float32.

    A row of zeros stands for an LLM that is not known.
    """
    return np.array([[name == llm for llm in llms] for name in named], np.float32).reshape(
        len(named), len(llms)
    )
