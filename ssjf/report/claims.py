"""The papers' claims as data, each with a verdict from our runs."""

import math
import tomllib
from collections.abc import Callable
from functools import cache
from typing import Any

import pandas as pd

from ssjf.analysis import bootstrap
from ssjf.analysis.bootstrap import Estimate
from ssjf.analysis.estimates import COMPARISONS, changed, replicates
from ssjf.analysis.metrics import run_metrics
from ssjf.analysis.predictions import quality_of
from ssjf.errors import InputError, unknown
from ssjf.experiments import paths
from ssjf.experiments.grid import rows
from ssjf.files import whole_file

COLUMNS = [
    "claim_id", "paper", "provenance", "protocol", "unit", "paper_value", "tolerance", "value",
    "low", "high", "bracket_low", "bracket_high", "verdict", "ours", "reason", "command",
]  # fmt: skip
REPRODUCED, DIFFERS, NOT_ATTEMPTED = "reproduced", "differs", "not attempted"
NOT_COMPARABLE = "not comparable"  # data or weights are not public; ``ours`` says what we measure
_ENDS = ("low", "high", "bracket_low", "bracket_high")
NOTHING = Estimate(math.nan, math.nan, math.nan)

Claim = dict[str, Any]
Load = Callable[[str], pd.DataFrame]


def runs_of(experiment: str, keep: Callable[[Any], bool] | None = None) -> pd.DataFrame:
    """Read the runs of an experiment, one row each; ``keep`` selects by specification."""
    return per_run(rows(experiment, keep))


def per_run(frame: pd.DataFrame) -> pd.DataFrame:
    """Turn rows per request into rows per run, with the metrics that claims are about."""
    if "jct_mean" in frame:
        return frame
    keys = ("mode", "engine", "slots", "rho", "series", "protocol", "run_id", "x", "seed", "run")
    groups = frame.groupby([key for key in keys if key in frame], sort=False)
    return groups[["arrived_at", "finished_at"]].apply(run_metrics).reset_index()


def measure(options: dict[str, Any], load: Load = runs_of) -> Estimate:
    """Evaluate a claim's measure: experiment, series, metric, how, and conditions on keys."""
    options = dict(options)
    name = options.pop("experiment")
    if "quality" in options or "mean" in options:
        return _of_rows(rows(name), **options)
    frame = load(name)
    return _shrinks(frame, **options) if "shrinks" in options else compared(frame, **options)


def _of_rows(frame: pd.DataFrame, series: str, quality: str = "", mean: str = "") -> Estimate:
    """Estimate the quality of a series' predictions, or the mean of a column."""
    part = frame[frame["series"] == series]
    if mean:
        return bootstrap.interval(part[mean])
    estimate = quality_of(part, metrics=[quality]).set_index("metric").loc[quality]
    return Estimate(*map(float, estimate[["value", "low", "high"]]))


def compared(
    frame: pd.DataFrame,
    series: str,
    metric: str = "jct_mean",
    how: str = "reduction",
    baseline: str = "fcfs",
    **where: Any,
) -> Estimate:
    """Compare a series with the baseline on equal replicates: ``reduction`` (%) or ``factor``."""
    wide = _replicates(frame, series, metric, baseline, where)
    return COMPARISONS[how](wide[baseline], wide[series])


def _replicates(
    frame: pd.DataFrame, series: str, metric: str, baseline: str, where: dict[str, Any]
) -> pd.DataFrame:
    for key, value in where.items():
        frame = frame[frame[key] == value]
    wide = replicates(frame, metric)
    for name in (series, baseline):
        if name not in wide:
            raise InputError(f"no rows of series {name} with {where}")
    return wide


def _shrinks(frame: pd.DataFrame, shrinks: str, start, end, series: str, **where) -> Estimate:
    """Points by which the reduction falls from one value of a key to another."""
    before, after = (
        _replicates(frame, series, "jct_mean", "fcfs", where | {shrinks: value})
        for value in (end, start)
    )
    return changed(before, after, series)


def claims() -> dict[str, Claim]:
    """Read all claims of all papers, by id, in the order of the files."""
    known = {}
    for file in sorted(paths.papers().glob("*.toml")):
        paper = tomllib.loads(file.read_text())
        for claim in paper.get("claim", []):
            known[claim["id"]] = claim | {"paper": paper["paper"]["arxiv"]}
    if not known:
        raise InputError(f"no claims in {paths.papers()}: run ssjf in its repository")
    return known


def check(ids: list[str] | None = None) -> pd.DataFrame:
    """Judge all claims, or the named ones; unknown ids list the known ones."""
    known = claims()
    for claim_id in ids or []:
        if claim_id not in known:
            raise unknown("claim", claim_id, known)
    load = cache(runs_of)  # many claims are about the same runs
    return pd.DataFrame([_judge(known[i], load) for i in ids or known], columns=COLUMNS)


def _judge(claim: Claim, load: Load = runs_of) -> Claim:
    estimate, verdict = NOTHING, NOT_ATTEMPTED
    if "measure" in claim:
        estimate = measure(claim["measure"], load)
        if "interval" in claim:
            fresh = measure(claim["interval"], load)
            estimate = Estimate(estimate.value, fresh.low, fresh.high)
    elif "ratio" in claim:
        estimate = Estimate(100 * claim["ratio"][0] / claim["ratio"][1], math.nan, math.nan)
    if "ours" in claim:
        verdict = NOT_COMPARABLE
    elif not math.isnan(estimate.value):
        verdict = REPRODUCED if _holds(claim, estimate) else DIFFERS
    reason = "" if verdict == REPRODUCED else claim.get("reason", "")
    if verdict != REPRODUCED and not reason:
        raise InputError(f"claim {claim['id']}, {verdict}: its reason is missing")
    ends = [measure(end, load).value for end in claim.get("bracket", [])] or [math.nan] * 2
    return {
        "claim_id": claim["id"],
        "paper_value": claim["value"],
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "bracket_low": ends[0],
        "bracket_high": ends[1],
        "ours": claim.get("ours", ""),
        "verdict": verdict,
        "reason": reason,
        "tolerance": claim.get("tolerance", math.nan),
        **{key: claim[key] for key in ("paper", "provenance", "protocol", "unit", "command")},
    }


def _holds(claim: Claim, estimate: Estimate) -> bool:
    """Is ours within the tolerance, or its interval above the value of an ``above`` claim?"""
    if claim.get("relation") == "above":
        return estimate.low > claim["value"]
    return abs(estimate.value - claim["value"]) <= claim["tolerance"]


def write(verdicts: pd.DataFrame) -> None:
    """Write ``results/claims.csv``, rounded so that it is the same on every machine."""
    with whole_file(paths.results() / "claims.csv") as temporary:
        verdicts.round({"value": 4, **dict.fromkeys(_ENDS, 3)}).to_csv(temporary, index=False)
