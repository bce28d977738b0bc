"""The published protocol: many small runs of the SSJF authors' simulation."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from ssjf.experiments import run_rows
from ssjf.experiments.draws import draw, small_runs, whole_second_poisson
from ssjf.experiments.grid import WORKLOAD_KEYS
from ssjf.experiments.open_loop import STREAMS
from ssjf.proxy import predict
from ssjf.request import Requests
from ssjf.simulator.published import Quirks, duration_seconds, serve
from ssjf.workload import lengths
from ssjf.workload.lengths import llm_boxes

Spec = dict[str, Any]
Run = tuple[float, int, int, Requests]  # x, seed, run, what arrives


def rows(spec: Spec) -> pd.DataFrame:
    """All rows of a run, one per repetition or per request."""
    return run_rows.table(spec, list(_published(spec)))


def _published(spec: Spec) -> Iterator[Any]:
    quirks = Quirks().without(spec.get("quirks_off", []))
    for x, seed, run, requests in _small_runs(spec["workload"], quirks):
        rng = np.random.default_rng([seed, run, STREAMS["predictor"]])
        predicted = predict(spec["predictor"], requests, rng) if "predictor" in spec else None
        expected = predict(spec["expected"], requests, rng) if "expected" in spec else None
        slots = spec["slots"] if "slots" in spec else int(x)
        measured = serve(requests, spec["policy"], spec["mode"], slots, predicted, expected, quirks)
        alone = duration_seconds(requests.output_tokens)
        yield run_rows.row(spec, x, seed, run, measured, alone)


def _small_runs(workload: Spec, quirks: Quirks) -> Iterator[Run]:
    if workload["draw"] == "llm-boxes":
        yield from _box_runs(workload, quirks)
        return
    options = {
        key: value for key, value in workload.items() if key not in ("scales", *WORKLOAD_KEYS)
    }
    for x, seed, run, requests in small_runs(draw(options)):
        if workload["draw"] == "trace-windows":
            for scale in workload["scales"]:
                yield scale, seed, run, requests.arriving(_scaled(requests, scale, quirks))
        else:
            arrived = _arrivals(workload["draw"], requests.arrived_at, quirks, [seed, run, int(x)])
            yield x, seed, run, requests.arriving(arrived)


def _arrivals(kind: str, drawn: np.ndarray, quirks: Quirks, seed: list[int]) -> np.ndarray:
    """The arrivals of a draw, with or without the quirk that bears on them."""
    if kind == "cv-sweep":
        gaps = np.diff(drawn, prepend=0.0)
        return np.cumsum(np.sort(gaps)) if quirks.sorted_gaps else drawn
    if quirks.whole_second_arrivals:
        return drawn
    # Given its counts per second, a Poisson process is uniform within each second.
    return np.sort(drawn + np.random.default_rng([*seed, STREAMS["jitter"]]).random(len(drawn)))


def _scaled(requests: Requests, scale: float, quirks: Quirks) -> np.ndarray:
    """Azure offsets in ms: read as seconds and rounded to 0.1 (the quirk), or taken as ms."""
    if quirks.milliseconds_as_seconds:
        return np.round(requests.arrived_at / scale, 1)
    return requests.arrived_at / 1000 / scale


def _box_runs(workload: Spec, quirks: Quirks) -> Iterator[Run]:
    """Runs whose lengths are drawn from the box-plot statistics of one LLM."""
    low, q1, median, q3, high = llm_boxes().loc[workload["llm"]]
    n, rate = workload["jobs"], workload["rate"]
    for seed in workload["seeds"]:
        for run in range(workload["runs"]):
            drawn = whole_second_poisson(np.random.RandomState([seed, run]), rate, n)
            rng = np.random.default_rng([seed, run, STREAMS["lengths"]])
            output = lengths.from_quartiles(n, low, q1, median, q3, high, rng)
            requests = Requests(drawn, np.ones_like(output), output)
            yield 0.0, seed, run, requests.arriving(_arrivals("", drawn, quirks, [seed, run, 0]))
