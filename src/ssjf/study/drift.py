"""Drift: the LLM behind the queue changes, or two share it, while the predictor knows one.

The engine of the experiment ``drift``: the iteration-level simulator, on prompts of AlpacaEval
with the lengths of two LLMs and the predictions, made without a prompt's own fold, of a predictor
that was trained for the first. All come from a raw run of the experiment ``transfer``.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ssjf.engine.profile import Profile, profile
from ssjf.engine.server import Server
from ssjf.engine.simulator import simulate
from ssjf.errors import unknown
from ssjf.policy import policy
from ssjf.request import Completions, FloatArray, IntArray, Requests
from ssjf.study import metrics, theory
from ssjf.study.drift_calibration import calibrated_by_passes
from ssjf.study.experiments import rows

Spec = dict[str, Any]
STREAMS = {"prompts": 0, "arrivals": 1, "llms": 2}
BINS = 30  # of requests by arrival about the middle, for the course of the error


@dataclass(frozen=True)
class Pool:
    """n prompts and two LLMs: true and predicted lengths in tokens, shape (2, n)."""

    output_tokens: IntArray
    predicted_tokens: FloatArray


def measured(spec: Spec) -> pd.DataFrame:
    """One row per seed: metrics of the whole run, and of either half."""
    workload = spec["workload"]
    pool = _pool(workload["first"], workload["second"])
    found = pd.DataFrame(_row(spec, pool, seed) for seed in workload["seeds"])
    values = found.columns.difference(["x", "seed", "run"])
    return found.astype(dict.fromkeys(values, np.float32) | {"x": np.float32, "seed": np.int32,
                                                             "run": np.int32})  # fmt: skip


def _pool(*llms: str) -> Pool:
    told = rows("transfer", lambda spec: spec["series"] == "predictions")
    for llm in llms:
        if llm not in set(told["llm"]):
            raise unknown("LLM", llm, told["llm"].unique())
    parts = [told[told["llm"] == llm].sort_values("prompt") for llm in llms]
    return Pool(
        np.stack([part["output_tokens"].to_numpy(np.int64) for part in parts]),
        np.stack([part["predicted_tokens"].to_numpy(np.float64) for part in parts]),
    )


def _row(spec: Spec, pool: Pool, seed: int) -> dict[str, float]:
    model, slots = profile(spec["profile"]), spec["slots"]
    server = Server(**spec["server"] | {"slots": slots})
    prompts, llm = _drawn(spec, pool, seed)
    requests = _arriving(spec, pool.output_tokens[llm, prompts], llm, model, seed)
    # The predictor was trained for the first LLM; ``own`` has one for each.
    trained_for = llm if spec.get("predictor") == "own" else np.zeros_like(llm)
    predicted = pool.predicted_tokens[trained_for, prompts]

    def serve(lengths: FloatArray) -> Completions:
        return simulate(requests, policy(spec["policy"]), model, server, lengths)

    if "calibrated" in spec:
        groups = _groups(spec["calibrated"], llm)
        predicted, runs = calibrated_by_passes(predicted, groups, serve, spec["calibration"])
    else:
        runs = [serve(predicted)]
    done = runs[-1]
    alone = model.alone_seconds(requests.prompt_tokens, requests.output_tokens)
    whole = metrics.summarise(done, alone, spec["warmup_fraction"])
    kept = {name: whole[name] for name in spec["columns"]}
    kept["pass_change"] = _change(runs[-2:])
    return {"x": spec["rho"], "seed": seed, "run": 0, **kept, **_by_time(spec, done, predicted)}


def _groups(calibrated: str, llm: IntArray) -> IntArray:
    """Which requests share a calibrator, shape (n,)."""
    known = {"common": np.zeros_like(llm), "per-llm": llm}
    if calibrated not in known:
        raise unknown("calibration of", calibrated, known)
    return known[calibrated]


def _change(runs: list[Completions]) -> float:
    """By how much the last pass changed the mean JCT, in percent: 0 where all was settled."""
    before, after = (np.mean(run.finished_at - run.requests.arrived_at) for run in
                     (runs[0], runs[-1]))  # fmt: skip
    return float(100 * abs(after / before - 1))


def _drawn(spec: Spec, pool: Pool, seed: int) -> tuple[IntArray, IntArray]:
    """The prompt and the LLM (0 or 1) of each request, shape (n,)."""
    n = spec["workload"]["requests"]
    prompts = _rng(seed, "prompts").integers(0, pool.output_tokens.shape[1], n)
    if spec["scenario"] == "shift":
        return prompts, (np.arange(n) >= n // 2).astype(np.int64)
    if spec["scenario"] == "tenants":
        return prompts, _rng(seed, "llms").integers(0, 2, n)
    raise unknown("scenario", spec["scenario"], ["shift", "tenants"])


def _arriving(spec: Spec, output: IntArray, llm: IntArray, model: Profile, seed: int) -> Requests:
    """Poisson arrivals; after a shift the rate is such that the load is what it was."""
    one = np.ones_like(output)
    alone = model.alone_seconds(one, output)
    phase = llm if spec["scenario"] == "shift" else np.zeros_like(llm)
    means = np.array([alone[phase == k].mean() if (phase == k).any() else 1.0 for k in (0, 1)])
    rates = np.array([theory.rate_for(spec["rho"], mean, spec["slots"]) for mean in means])
    gaps = _rng(seed, "arrivals").exponential(1.0, len(output)) / rates[phase]
    return Requests(np.cumsum(gaps), one, output)


def _by_time(spec: Spec, done: Completions, predicted: FloatArray) -> dict[str, float]:
    """Mean JCT (s) and mean absolute error of the log length, by part of the run.

    ``before``: from the warm-up to the middle; ``after``: from there; ``settled``: the last
    quarter. ``log_error_00``…: the error in bins of n / 400 requests, the eleventh the first
    after the middle.
    """
    n = len(done)
    jct = done.finished_at - done.requests.arrived_at
    error = abs(np.log(predicted) - np.log(done.requests.output_tokens))
    parts = {
        "before": slice(int(spec["warmup_fraction"] * n), n // 2),
        "after": slice(n // 2, n),
        "settled": slice(n - n // 4, n),
    }
    found = {f"jct_mean_{name}": float(jct[part].mean()) for name, part in parts.items()}
    found |= {f"log_error_{name}": float(error[part].mean()) for name, part in parts.items()}
    size = n // 400
    course = error[n // 2 - 10 * size :][: BINS * size].reshape(BINS, size).mean(axis=1)
    return found | {f"log_error_{place:02d}": float(mean) for place, mean in enumerate(course)}


def _rng(seed: int, stream: str) -> np.random.Generator:
    return np.random.default_rng([seed, STREAMS[stream]])
