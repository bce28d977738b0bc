"""Answers of a real model to real prompts: their lengths and finish reasons, no text.

Prompts are the first messages of conversations, in the order of their hashes, so that n prompts
are the same on every machine.
"""

import hashlib
from collections.abc import Iterable
from functools import cache

import numpy as np
import pandas as pd

from ssjf.errors import InputError
from ssjf.experiments.runs.vllm import engine, with_hardware
from ssjf.experiments.specs import AnswersRun
from ssjf.experiments.workloads import Asked, Chats, NaturalLoop
from ssjf.harness.engine import Prompts
from ssjf.request import Requests
from ssjf.simulator.server import Server
from ssjf.workload.texts import Texts, load_texts, prompt_hash

GRAM = 4
"""Consecutive tokens by which repetition is counted."""
TEMPLATE_TOKENS = 64  # reserved for the chat template
_NAMES = {True: "stop", False: "length"}


def rows(spec: AnswersRun) -> pd.DataFrame:
    """Make a row per answer of a shard.

    Columns: x (the limit in tokens), prompt_hash, split, sample, prompt_tokens (including the chat
    template), output_tokens (including the end token), finish_reason (stop or length), repeated
    (share of its 4-grams of tokens that occurred earlier in the answer), answer (a hash).
    """
    workload, decoding = spec.workload, spec.decoding.as_json()
    live = engine(spec.deployment)
    has = live.deployment
    texts = asked(workload, decoding["most_tokens"], has.context_tokens)
    hashes = [prompt_hash(prompt) for prompt in texts.prompts]
    sample = np.tile(np.arange(workload.samples), len(texts))
    repeat = np.repeat(np.arange(len(texts)), workload.samples)
    seeds = [seed_of(hashes[i], int(k)) for i, k in zip(repeat, sample, strict=True)]
    n = len(repeat)
    requests = Requests(np.zeros(n), np.ones(n, int), np.full(n, decoding["most_tokens"]))
    # No chunked prefill: vLLM 0.32 on a CPU cannot rewind the random numbers of such a step
    server = Server(slots=has.slots, token_budget=has.token_budget, block_tokens=has.block_tokens,
                    kv_tokens=has.kv_tokens, chunked_prefill=False)  # fmt: skip
    prompts = Prompts([texts.prompts[i] for i in repeat], decoding, seeds)
    done, _, more = live.serve(requests, "fcfs", server, prompts=prompts)
    lengths = done.requests.output_tokens
    answers = np.split(more["tokens"], np.cumsum(lengths)[:-1])
    table = pd.DataFrame({
        "x": np.float32(decoding["most_tokens"]), "seed": np.int32(0), "run": np.int32(0),
        "prompt_hash": [hashes[i] for i in repeat], "split": texts.splits()[repeat],
        "sample": sample.astype(np.int32),
        "prompt_tokens": done.requests.prompt_tokens.astype(np.int32),
        "output_tokens": lengths.astype(np.int32),
        "finish_reason": [_NAMES[bool(ended)] for ended in more["ended_by_model"]],
        "repeated": np.array([repeated(each) for each in answers], np.float32),
        "answer": [digest(each) for each in answers],
    })  # fmt: skip
    return with_hardware(spec.deployment, table)


@cache
def first_messages(data: str, column: str | None) -> Texts:
    """The distinct first messages of a data set in the order of their hashes."""
    texts = load_texts(data, label=column)
    opening = [
        i
        for i, prompt in enumerate(texts.prompts)
        if texts.turn[i] == 1 and prompt.strip() and prompt == texts.first_prompts[i]
    ]
    texts = texts.take(np.array(opening, np.int64)).distinct()
    return texts.take(np.argsort([prompt_hash(prompt) for prompt in texts.prompts]))


def prompts_of(workload: NaturalLoop | Chats, hashes: Iterable[str]) -> list[str]:
    """The prompts with these hashes; InputError if the workload's data set lacks one."""
    texts = first_messages(workload.data, workload.column)
    by_hash = {prompt_hash(prompt): prompt for prompt in texts.prompts}
    hashes = [*hashes]
    if absent := [each for each in hashes if each not in by_hash]:
        raise InputError(f"data set {workload.data} lacks the prompt {absent[0]} of the pool")
    return [by_hash[each] for each in hashes]


def asked(workload: Asked, most_tokens: int, context_tokens: int) -> Texts:
    """The prompts of a shard, of those that fit the context with any tokenizer."""
    texts = first_messages(workload.data, workload.column)
    if workload.splits is not None:
        texts = texts.take(np.isin(texts.splits(), workload.splits))
    room = context_tokens - most_tokens - TEMPLATE_TOKENS
    fits = [len(prompt.encode("utf-8", "replace")) <= room for prompt in texts.prompts]
    texts = texts.take(np.array(fits, bool))
    last = workload.first + workload.prompts
    if last > len(texts):
        raise InputError(f"data set {workload.data} has {len(texts)} prompts that fit; prompts "
                         f"{workload.first} to {last} are asked for")  # fmt: skip
    return texts.take(slice(workload.first, last))


def seed_of(hash_of_prompt: str, sample: int) -> int:
    """The sampling seed of one answer, different for every prompt and sample."""
    return int(hashlib.sha256(f"{hash_of_prompt}:{sample}".encode()).hexdigest()[:7], 16)


def digest(tokens: np.ndarray) -> str:
    """Hash an answer's tokens to 16 hex digits."""
    return hashlib.sha256(np.asarray(tokens, "<i4").tobytes()).hexdigest()[:16]


def repeated(tokens: np.ndarray) -> float:
    """The share of an answer's 4-grams that occurred earlier in it; near 1 if it loops."""
    grams = max(len(tokens) - GRAM + 1, 0)
    if not grams:
        return 0.0
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(tokens), GRAM)
    return 1 - len(np.unique(windows, axis=0)) / grams
