"""The papers' claims as data, each with a verdict from our own runs."""

import math
import tomllib
from functools import cache
from typing import Any

import pandas as pd

from ssjf.analysis.bootstrap import Estimate
from ssjf.errors import InputError, unknown
from ssjf.experiments import paths
from ssjf.files import whole_file
from ssjf.report.measures import Load, measure, runs_of

COLUMNS = [
    "claim_id", "paper", "provenance", "protocol", "unit", "paper_value", "tolerance", "value",
    "low", "high", "bracket_low", "bracket_high", "verdict", "ours", "reason", "command",
]  # fmt: skip
REPRODUCED, DIFFERS, NOT_ATTEMPTED = "reproduced", "differs", "not attempted"
NOT_COMPARABLE = "not comparable"  # its data or weights are not public: ours says what is measured
_ENDS = ("low", "high", "bracket_low", "bracket_high")
NOTHING = Estimate(math.nan, math.nan, math.nan)

Claim = dict[str, Any]


def claims() -> dict[str, Claim]:
    """All claims of all papers, by id, in the order of the files."""
    found = {}
    for file in sorted(paths.papers().glob("*.toml")):
        paper = tomllib.loads(file.read_text())
        for claim in paper.get("claim", []):
            found[claim["id"]] = claim | {"paper": paper["paper"]["arxiv"]}
    if not found:
        raise InputError(f"no claims in {paths.papers()}: run ssjf in its repository")
    return found


def check(ids: list[str] | None = None) -> pd.DataFrame:
    """A verdict for each claim (all of them, or those named); unknown ids list the known ones."""
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
    """Within the tolerance; or, for a claim that something is ``above``, surely so."""
    if claim.get("relation") == "above":
        return estimate.low > claim["value"]
    return abs(estimate.value - claim["value"]) <= claim["tolerance"]


def write(verdicts: pd.DataFrame) -> None:
    """``results/claims.csv``, rounded so that it is the same on every machine."""
    with whole_file(paths.claims_csv()) as temporary:
        verdicts.round({"value": 4, **dict.fromkeys(_ENDS, 3)}).to_csv(temporary, index=False)
