"""Rules of other systems, from their public code at the commit named, with our deviations.

"After" marks a rule known only from a description, or changed in more than its units. Lengths come
from any of our predictors; times are in seconds. Multi-Bin batching and EWSJF are left out: they
form whole batches of similar lengths, and a server with continuous batching has none.
"""

import math

import numpy as np

from ssjf.errors import InputError
from ssjf.request import FloatArray
from ssjf.scheduler.base import Bound, Moving, Policy, Queue
from ssjf.scheduler.orderings import shortest_predicted, tokens
from ssjf.scheduler.tail import headstart

SHORT_TOKENS, MEDIUM_TOKENS = 128, 512
PREFILL_TOKEN_SECONDS = 64e-6
ELIS_TOKENS = 50
LEVEL = 1e9  # seconds: more than any arrival
HELD = -1e15  # below every other score: never a victim
STEPS, GROWTH = 32, 1.3  # of the grid on which Gittins' index is searched


def tie(seconds: float) -> Policy:
    """TIE's wait decay, score · 0.9^(wait / 30 s), as the static key HEADSTART: the same order.

    Hyzheng-code/TIE@ce6ddc4d, request_queue.py. Its score E[min(X, cap)] + β · CVaR is a constant
    factor of the prediction if all relative errors are alike, as we assume. TIE looks at waits
    every 5 s, we always do.
    """
    return headstart(seconds)


def gamma_boost(seconds: float, token: float) -> Policy:
    """γ-boost: arrival − (1/γ) · ln(1 / (1 − e^(−γ·w))), w seconds of work, ``seconds`` = 1/γ.

    Yu, Harchol-Balter & Scully, "Strongly tail-optimal scheduling in the light-tailed M/G/1"
    (2024); yl3469/sglang@9979a9aa, schedule_policy.py, where w is the prefill's. Here w is
    predicted tokens · ``token`` seconds.
    """

    def score(queue: Queue, now: float) -> FloatArray:
        return queue.arrived_at + seconds * np.log(-np.expm1(-tokens(queue) * token / seconds))

    return Policy("gamma-boost", score, "constant")


def clairvoyant(seconds: float) -> Policy:
    """After Clairvoyant: short, medium, long, FCFS in each; promoted after ``seconds`` of waiting.

    Aravind0403/clairvoyant-scheduler@148acf29; the boundaries of the classes are ours.
    """

    def score(queue: Queue, now: float) -> FloatArray:
        return np.searchsorted([SHORT_TOKENS, MEDIUM_TOKENS], tokens(queue)).astype(np.float64)

    return Policy("clairvoyant", score, "constant", _after(seconds))


def ltr(seconds: float) -> Policy:
    """After LTR: by predicted rank; promoted after ``seconds`` of waiting.

    hao-ai-lab/vllm-ltr@13bbf6f, vllm/core/scheduler.py: it counts idle scheduler steps (200), and
    promotes for some steps (10), not for good; it preempts running requests, this does not.
    """
    return Policy("ltr", shortest_predicted, "constant", _after(seconds))


def _after(seconds: float) -> Bound:
    return lambda queue: np.full(len(queue), seconds)


def _kept(arrived: float, predicted: float, generated: float, now: float, limit: float) -> float:
    return HELD if generated > limit * predicted else predicted - generated


def _last(arrived: float, predicted: float, generated: float, now: float, limit: float) -> float:
    return -HELD if generated > limit * predicted else predicted - generated


def trail(limit: float) -> Policy:
    """TRAIL: shortest remaining first, no preemption beyond ``limit`` · predicted tokens.

    harvard-cns/TRAIL-llm-scheduling@3c4bcd6a. A request beyond the limit keeps its slot; if it has
    to wait all the same, for lack of KV memory, it is the last. The remaining length is
    predicted − generated: no probe refines it. With limit 0 every request with a token is kept.
    """
    return Policy("trail", Moving(_last, (limit,)), preempts=True, victims=Moving(_kept, (limit,)))


def trail_first(limit: float) -> Policy:
    """TRAIL as read in sglang#23688: a waiting request beyond the limit is the first."""
    return Policy("trail-first", Moving(_kept, (limit,)), preempts=True)


def uniboost(per_second: float) -> Policy:
    """UniBoost's branch: γ-boost of the prefill, 64 µs a prompt token; ``per_second`` = γ.

    yl3469/sglang@9979a9aa, schedule_policy.py. γ is the maximum that it has there (where it falls
    as t99 / t95 of the finished requests grows); all of the prompt counts, as nothing is cached.
    No length is predicted: equal prompts are served first come, first served.
    """

    def score(queue: Queue, now: float) -> FloatArray:
        work = np.maximum(queue.prompt_tokens, 1) * PREFILL_TOKEN_SECONDS
        return queue.arrived_at + np.log(-np.expm1(-per_second * work)) / per_second

    if per_second <= 0:
        raise InputError("policy uniboost: γ is 0 per second; it must be above 0")
    return Policy("uniboost", score, "constant", uses_prediction=False)


def prompt_ratio() -> Policy:
    """After SGLang's HRRN: longest wait per prompt token first.

    sglang 0.5.23, schedule_policy.py. There the wait is counted in tokens that the engine has
    processed, which is proportional to seconds as long as its batches are alike; all of the prompt
    counts, as nothing is cached. No length is predicted.
    """

    def score(queue: Queue, now: float) -> FloatArray:
        return (queue.arrived_at - now) / np.maximum(queue.prompt_tokens, 1)

    return Policy("sglang-hrrn", score, "linear", uses_prediction=False)


def _elis(arrived: float, predicted: float, generated: float, now: float) -> float:
    seen = ELIS_TOKENS * math.floor(generated / ELIS_TOKENS)
    total = max(predicted, 1.0)
    while total <= seen:
        total *= 2
    return total - seen


def elis() -> Policy:
    """After ELIS: shortest remaining first, predicted anew every 50 tokens.

    hyunnnchoi/ELIS@5f74e6b (a port). As we lack its encoder, the new prediction is the same length,
    doubled when exceeded.
    """
    return Policy("elis", Moving(_elis), preempts=True)


def _mlfq(arrived: float, predicted: float, generated: float, now: float, quantum: float) -> float:
    return LEVEL * math.floor(math.log2(1 + generated / quantum)) + arrived


def mlfq(quantum: float) -> Policy:
    """After FastServe (arXiv 2305.05920, a description): a multi-level feedback queue.

    Nothing is predicted: a request begins in the top level and goes down a level after ``quantum``,
    then 2, 4, 8 … times as many tokens; within a level the order is by arrival, and requests of
    lower levels are preempted. No level is skipped for a long prompt, and none is promoted.
    """
    if quantum <= 0:
        raise InputError("policy mlfq: a quantum of 0 tokens; it must be above 0")
    return Policy("mlfq", Moving(_mlfq, (quantum,)), uses_prediction=False, preempts=True)


def _gittins(arrived: float, predicted: float, generated: float, now: float, sigma: float) -> float:
    scale = 1 / (sigma * math.sqrt(2.0))
    alive = 1.0 if generated == 0 else math.erfc(math.log(generated / predicted) * scale) / 2
    if alive < 1e-12:
        return generated / sigma  # far beyond the prediction the rest grows with what there was
    best, area, before, at = 0.0, 0.0, alive, generated
    span = max(predicted, generated) / 50
    for _ in range(STEPS):
        at += span
        left = math.erfc(math.log(at / predicted) * scale) / 2
        area += span * (before + left) / 2
        best = max(best, (alive - left) / area)
        before, span = left, span * GROWTH
    return 1 / max(best, 1e-12)


def gittins(sigma: float) -> Policy:
    """Gittins' index of a log-normal length about the prediction; σ is of its logarithm.

    The index is the best ratio, over spans of tokens, of the chance to end within the span to the
    expected tokens that takes (Gittins 1979; Aalto, Ayesta & Righter 2009), searched on a grid; the
    score is 1 / index.
    """
    return Policy("gittins", Moving(_gittins, (sigma,)), preempts=True)
