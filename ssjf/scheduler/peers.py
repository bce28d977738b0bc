"""The rules of other systems, from their public code at the commit named; deviations are said.

"After" means known from a description, or changed more than in units. Lengths are what any of our
predictors says, times are seconds. Left out: Multi-Bin batching and EWSJF, which form whole batches
of like lengths; a server that batches continuously has none.
"""

import math

import numpy as np

from ssjf.errors import InputError
from ssjf.request import FloatArray
from ssjf.scheduler.base import Moving, Policy, Queue
from ssjf.scheduler.orderings import shortest_predicted, tokens
from ssjf.scheduler.tail import headstart

TIE_SECONDS = 30 / math.log(1 / 0.9)
SHORT_TOKENS, MEDIUM_TOKENS = 128, 512
CLAIRVOYANT_SECONDS, LTR_SECONDS = 15.0, 30.0
PREFILL_TOKEN_SECONDS = 64e-6
ELIS_TOKENS, QUANTUM_TOKENS = 50, 32.0
LEVEL = 1e9  # seconds: more than any arrival
HELD = -1e15  # before every score: never a victim
STEPS, GROWTH = 32, 1.3  # of the grid on which Gittins' index is sought


def tie(seconds: float = TIE_SECONDS) -> Policy:
    """TIE's wait decay, score · 0.9^(wait / 30 s): the order of the static key HEADSTART.

    Hyzheng-code/TIE@ce6ddc4d, request_queue.py. Its score E[min(X, cap)] + β · CVaR is a constant
    factor of the prediction where all relative errors are alike, as we take them to be; it looks
    at waits every 5 s, we always do.
    """
    return headstart(seconds)


def gamma_boost(seconds: float, token: float = 0.02) -> Policy:
    """γ-boost: arrival − (1/γ) · ln(1 / (1 − e^(−γ·w))), w seconds of work, ``seconds`` = 1/γ.

    Yu, Harchol-Balter & Scully, "Strongly tail-optimal scheduling in the light-tailed M/G/1"
    (2024); yl3469/sglang@9979a9aa, schedule_policy.py, where w is the prefill's. Here w is
    predicted tokens · ``token`` seconds.
    """

    def score(queue: Queue, now: float) -> FloatArray:
        return queue.arrived_at + seconds * np.log(-np.expm1(-tokens(queue) * token / seconds))

    return Policy("gamma-boost", score, "constant")


def clairvoyant(seconds: float = CLAIRVOYANT_SECONDS) -> Policy:
    """After Clairvoyant: short, medium or long, FCFS inside; first of all after so long a wait.

    Aravind0403/clairvoyant-scheduler@148acf29; where its classes end is ours.
    """

    def score(queue: Queue, now: float) -> FloatArray:
        return np.searchsorted([SHORT_TOKENS, MEDIUM_TOKENS], tokens(queue)).astype(np.float64)

    return Policy("clairvoyant", score, "constant", _after(seconds))


def ltr(seconds: float = LTR_SECONDS) -> Policy:
    """After LTR: by rank, first of all once idle for so long.

    hao-ai-lab/vllm-ltr@13bbf6f, vllm/core/scheduler.py: it counts idle scheduler steps (200), and
    promotes for some steps (10), not for good; running requests give way there, not here.
    """
    return Policy("ltr", shortest_predicted, "constant", _after(seconds))


def _after(seconds: float):
    return lambda queue: np.full(len(queue), seconds)


def _kept(arrived: float, predicted: float, generated: float, now: float, limit: float) -> float:
    return HELD if generated > limit * predicted else predicted - generated


def _last(arrived: float, predicted: float, generated: float, now: float, limit: float) -> float:
    return -HELD if generated > limit * predicted else predicted - generated


def trail(limit: float = 0.8) -> Policy:
    """TRAIL: shortest remaining first; running requests give way until ``limit`` · predicted.

    harvard-cns/TRAIL-llm-scheduling@3c4bcd6a. Who is beyond the limit keeps its slot; should it
    wait all the same, since KV memory was short, it is the last. The remaining length is
    predicted − generated: no probe refines it. With limit 0 whoever has a token is kept.
    """
    return Policy("trail", Moving(_last, (limit,)), preempts=True, victims=Moving(_kept, (limit,)))


def trail_first(limit: float = 0.8) -> Policy:
    """TRAIL as read in sglang#23688: who is beyond the limit is the first of those that wait."""
    return Policy("trail-first", Moving(_kept, (limit,)), preempts=True)


def uniboost(per_second: float = 10.0) -> Policy:
    """UniBoost's branch: γ-boost of the prefill, 64 µs a prompt token; ``per_second`` = γ.

    yl3469/sglang@9979a9aa, schedule_policy.py. Where γ is the most that it is there (it falls
    where t99 / t95 of what has finished grows); all of the prompt counts, as nothing is cached.
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
    processed, which is seconds as long as its batches are alike; all of the prompt counts, as
    nothing is cached. No length is predicted.
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

    hyunnnchoi/ELIS@5f74e6b (a port). Without its encoder what is predicted anew is the same
    length, doubled when outlived.
    """
    return Policy("elis", Moving(_elis), preempts=True)


def _mlfq(arrived: float, predicted: float, generated: float, now: float, quantum: float) -> float:
    return LEVEL * math.floor(math.log2(1 + generated / quantum)) + arrived


def mlfq(quantum: float = QUANTUM_TOKENS) -> Policy:
    """After FastServe (arXiv 2305.05920, a description): a multi-level feedback queue.

    Nothing is predicted: a request begins at the top and goes down a level after ``quantum``, 2, 4,
    8 … times so many tokens; inside a level by arrival, and a lower level gives way. Without
    skipping levels by the prompt's length, and without promotion of who starves.
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


def gittins(sigma: float = 0.5, preempts: bool = True) -> Policy:
    """Gittins' index of a log-normal length about the prediction, its logarithm's deviation σ.

    The best ratio of the chance to end within so many tokens to the tokens that takes (Gittins
    1979; Aalto, Ayesta & Righter 2009), sought on a grid; 1 / index is the score.
    """
    return Policy("gittins", Moving(_gittins, (sigma,)), preempts=preempts)
