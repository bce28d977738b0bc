"""Switch length-aware order on, leave it off, or cap it: one sentence from a comparison."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from ssjf.experiments import what_if
from ssjf.proxy import predict
from ssjf.request import Requests
from ssjf.serving.options import ServeOptions
from ssjf.serving.priority import Keys
from ssjf.simulator.profile import Profile
from ssjf.simulator.server import Server

CAPS_SECONDS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Bounds of ``ssjf serve --overtake-seconds`` that are tried where pure order harms the tail."""
TAIL_PERCENT = 5.0  # how much higher than FCFS's the p99 of an advised order may be
NO_QUEUE = 0.05  # mean queue depth below which there is nothing to reorder
ORACLES = ("sjf", "srpt")  # no advice: they know what nobody does


@dataclass(frozen=True)
class Recommendation:
    """What to do with this traffic.

    action: ``switch on``, ``cap`` or ``leave off``. policy: the order that is meant, None where
        none helps. overtake_seconds: the cap, for ``ssjf serve``. sentence: the same in words,
        with gain, interval and tail.
    """

    action: str
    policy: str | None
    overtake_seconds: float | None
    sentence: str

    def as_json(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)


def capped(
    requests: Requests,
    model: Profile,
    server: Server,
    predictor: str,
    seed: int = 0,
    predictor_seconds: float = 0.0,
) -> pd.DataFrame:
    """Rows of ``what_if.compare`` for ``ssjf serve`` under each cap on overtaking.

    Returns the same columns, and ``overtake_seconds``. Predictions must be tokens; there are no
    rows where they are classes or ranks that reach 0.
    """
    predicted = predict(predictor, requests, np.random.default_rng(seed))
    baseline = what_if.fcfs(requests, model, server)
    rows = []
    for seconds in CAPS_SECONDS if predicted.min() > 0 else ():
        options = ServeOptions(overtake_seconds=seconds)
        served = what_if.serve(
            requests, Keys(options).policy, model, server,
            np.clip(predicted, 1, options.longest_tokens), predictor_seconds,
        )  # fmt: skip
        rows.append(what_if.row("ssjf", served, baseline, model) | {"overtake_seconds": seconds})
    return pd.DataFrame(rows)


def recommend(table: pd.DataFrame, rho: float, caps: pd.DataFrame | None = None) -> Recommendation:
    """Advise from a table of ``what_if.compare``, the load, and what ``capped`` gave.

    An order is advised whose gain is sure (its interval above 0) and whose p99 is at most
    ``TAIL_PERCENT`` above FCFS's: the one of lowest mean JCT. What no server can know (an oracle)
    is advised only where nothing else was asked for.
    """
    fcfs = table.iloc[0]
    load = _load(fcfs, rho)
    others = table[~table["policy"].isin(["fcfs", *ORACLES])]
    others = others if len(others) else table.iloc[1:]
    if others.empty:
        return Recommendation("leave off", None, None, f"Only FCFS was asked for ({load}).")
    if fcfs.queue_depth_mean < NO_QUEUE:
        why = f"there is hardly a queue to reorder ({load}), so every order is FCFS"
        return Recommendation("leave off", None, None, f"Leave it off: {why}.")
    best = others.loc[others["gain_percent"].idxmax()]
    if not best.gain_low > 0:
        return Recommendation("leave off", None, None,
                              f"Leave it off: {_does(best, fcfs)} ({load}).")  # fmt: skip
    if _tail(best, fcfs) <= TAIL_PERCENT:
        return Recommendation("switch on", best.policy, None,
                              f"Switch it on: {_does(best, fcfs)} ({load}).")  # fmt: skip
    return _with_kept_tail(best, others, caps, fcfs, load)


def _with_kept_tail(best, others, caps, fcfs, load: str) -> Recommendation:
    """The best order that keeps the p99, where the best by mean does not."""
    rest = others if caps is None else pd.concat([others, caps], ignore_index=True)
    kept = rest[(rest["gain_low"] > 0) & (_tail(rest, fcfs) <= TAIL_PERCENT)]
    without = f"without it {_does(best, fcfs)}"
    if kept.empty:
        return Recommendation(
            "leave off", None, None,
            f"Leave it off, unless the mean alone matters: {_does(best, fcfs)}, and no cap on "
            f"overtaking gains surely with a p99 within {TAIL_PERCENT:.0f} % of FCFS's ({load}).",
        )  # fmt: skip
    chosen = kept.loc[kept["gain_percent"].idxmax()]
    seconds = chosen.get("overtake_seconds", np.nan)
    if np.isnan(seconds):
        why = f"{_does(chosen, fcfs)}; {best.policy}, best by mean, {_moves_tail(best, fcfs)}"
        return Recommendation("switch on", chosen.policy, None, f"Switch it on: {why} ({load}).")
    option = f"`ssjf serve --overtake-seconds {seconds:g}`"
    return Recommendation("cap", "ssjf", float(seconds),
                          f"Switch it on with a cap, {option}: {_does(chosen, fcfs)}; "
                          f"{without} ({load}).")  # fmt: skip


def _load(fcfs: pd.Series, rho: float) -> str:
    depth = f"ρ {rho:.2f}, mean queue depth {fcfs.queue_depth_mean:.1f} under FCFS"
    return depth + (
        "; overloaded, so waits grow for as long as the trace lasts" if rho >= 1 else ""
    )


def _does(row: pd.Series, fcfs: pd.Series) -> str:
    mean = _moves("mean JCT", -row.gain_percent)
    return f"{row.policy} {mean} ({_interval(row)}) and {_moves_tail(row, fcfs)}"


def _tail(row, fcfs: pd.Series):
    """By how many percent the p99 is above FCFS's."""
    return 100 * (row["jct_p99"] / fcfs["jct_p99"] - 1)


def _moves_tail(row: pd.Series, fcfs: pd.Series) -> str:
    return _moves("its p99", _tail(row, fcfs))


def _interval(row: pd.Series) -> str:
    if np.isnan(row.gain_low):
        return "too few requests for an interval"
    low, high = (round(gain) for gain in (row.gain_low, row.gain_high))
    return f"95 % interval {low} to {high}"


def _moves(what: str, percent: float) -> str:
    if abs(percent) < 0.5:
        return f"leaves {what} as it is"
    return f"{'raises' if percent > 0 else 'lowers'} {what} by {abs(percent):.0f} %"
