"""The bench measures what it says it measures; how fast is not a test's business."""

import numpy as np
import pytest

from ssjf.errors import InputError
from ssjf.experiments.runs import bench

PROXY_FIELDS = {
    "prompt_tokens", "batch", "ms_per_prompt", "prompts_per_second", "rss_mb", "load_ms",
    "first_call_ms",
}  # fmt: skip


def test_a_proxy_is_measured_in_every_case():
    few = bench.proxy("builtin", calls=2)
    cases = [(each["prompt_tokens"], each["batch"]) for each in few]
    assert cases == [(64, 1), (64, 32), (256, 1), (256, 32)]
    for each in few:
        assert set(each) == PROXY_FIELDS
        assert 20 < each["rss_mb"] < 2000
        assert abs(each["ms_per_prompt"] * each["prompts_per_second"] / 1e3 - 1) < 0.01
        assert each["load_ms"] > 0 and each["first_call_ms"] > 0


def test_what_is_no_proxy_is_not_measured(tmp_path):
    with pytest.raises(InputError, match=" is no proxy: "):
        bench.proxy(str(tmp_path))


def test_prompts_have_their_words_and_are_the_same_each_time():
    first, second = (bench.prompts(3, 64, np.random.default_rng(0)) for _ in range(2))
    assert first == second and len(set(first)) == 3
    assert all(len(prompt.split()) == 64 for prompt in first)
    assert len(set(bench.WORDS)) == len(bench.WORDS)
