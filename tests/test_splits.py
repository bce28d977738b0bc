"""The split of a prompt: a function of its normalised text and of nothing else."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssjf.workload.texts import SPLITS, distinct, normalised, prompt_hash, split_of

# Of the 250 prompts of Open-Assistant/oasst-model-eval; the hashes are those of another program.
PUBLISHED = [
    ("Can you tell me about GLaDOS?", "3c326f81ffa4891f", "train"),
    ("why some poeple prefer short happiness ?", "1949cf380ce71e23", "train"),
]
words = st.lists(st.text("abcéß漢İ", min_size=1), min_size=1)
gaps = st.text(" \t\n\r\u00a0\u2003", min_size=1)


@pytest.mark.parametrize(
    ("prompt", "same"),
    [
        (" What  is\n\tthis? ", "what is this?"),
        ("Cafe\u0301", "caf\u00e9"),
        ("non\u00a0breaking\u2003spaces", "non breaking spaces"),
        ("\n", ""),
    ],
)
def test_normalised(prompt, same):
    assert normalised(prompt) == same


@pytest.mark.parametrize(("prompt", "known", "split"), PUBLISHED)
def test_hash_and_split_are_the_published_ones(prompt, known, split):
    assert prompt_hash(prompt) == known and split_of(prompt) == split


@given(words, gaps)
def test_white_space_and_case_change_neither_hash_nor_split(words, gap):
    plain, other = " ".join(words), gap.join(["", *words, ""])
    assert prompt_hash(plain) == prompt_hash(other)
    assert split_of(plain) == split_of(other)
    ascii_only = plain.encode("ascii", "ignore").decode()
    assert prompt_hash(ascii_only) == prompt_hash(ascii_only.upper())


@given(st.text())
def test_every_text_has_a_split(prompt):
    assert split_of(prompt) in SPLITS and len(prompt_hash(prompt)) == 16


def test_a_lone_surrogate_has_a_split_too():
    assert split_of("\ud800 from a broken JSON escape") in SPLITS


def test_eighty_ten_ten():
    """Binomial: five standard deviations of a share of 0.8 of 20,000 are 0.014."""
    n = 20_000
    found = Counter(split_of(f"Write {i} words about the sea.") for i in range(n))
    for name, share in zip(SPLITS, (0.8, 0.1, 0.1), strict=True):
        assert abs(found[name] / n - share) < 0.015


@given(st.lists(st.sampled_from(["a", "A ", " b", "b", "c\nd", "C D"])))
def test_distinct_keeps_the_first_of_each_normalised_prompt_in_order(prompts):
    kept = distinct(prompts)
    assert kept.dtype == np.int64 and np.all(np.diff(kept) > 0)
    seen = [normalised(prompts[i]) for i in kept]
    assert len(set(seen)) == len(seen) and set(seen) == {*map(normalised, prompts)}
    for i in kept:
        assert normalised(prompts[i]) not in {*map(normalised, prompts[:i])}
