"""The published protocol: many small runs of the SSJF authors' simulation."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from ssjf.experiments.draws import draw, small_runs
from ssjf.experiments.runs.steady import STREAMS, row, table
from ssjf.experiments.specs import PublishedRun
from ssjf.experiments.sweep_draws import whole_second_poisson
from ssjf.experiments.workloads import LlmBoxes, Sweep, TraceWindows
from ssjf.proxy import predict
from ssjf.request import Requests
from ssjf.simulator.published import Quirks, duration_seconds, serve
from ssjf.workload.synthetic import from_quartiles, llm_boxes

SmallRun = tuple[float, int, int, Requests]  # x, seed, run, what arrives


def rows(spec: PublishedRun) -> pd.DataFrame:
    """Make all rows of a run, one per repetition or per request."""
    quirks, parts = Quirks().without(spec.quirks_off), []
    for x, seed, run, requests in _small_runs(spec.workload, quirks):
        rng = np.random.default_rng([seed, run, STREAMS["predictor"]])
        predicted = predict(spec.predictor, requests, rng) if spec.predictor else None
        expected = predict(spec.expected, requests, rng) if spec.expected else None
        slots = int(x) if spec.slots is None else spec.slots
        done = serve(requests, spec.policy, spec.mode, slots, predicted, expected, quirks)
        parts.append(row(spec, x, seed, run, done, duration_seconds(requests.output_tokens)))
    return table(spec, parts)


def _small_runs(workload: Sweep, quirks: Quirks) -> Iterator[SmallRun]:
    if isinstance(workload, LlmBoxes):
        yield from _box_runs(workload, quirks)
        return
    for x, seed, run, requests, drawn in small_runs(draw(workload.draw_options())):
        if isinstance(workload, TraceWindows):
            for scale in workload.scales:
                yield scale, seed, run, requests.arriving(_scaled(requests, scale, quirks))
        else:
            arrived = _arrivals(workload.draw, drawn, quirks, [seed, run, int(x)])
            yield x, seed, run, requests.arriving(arrived)


def _arrivals(kind: str, drawn: np.ndarray, quirks: Quirks, seed: list[int]) -> np.ndarray:
    """The arrivals of a draw (or of its gaps), with or without the quirk that affects them."""
    if kind == "cv-sweep":
        return _summed(np.sort(drawn) if quirks.sorted_gaps else drawn)
    if quirks.whole_second_arrivals:
        return drawn
    # Given counts per second, a Poisson process is uniform within each second.
    return np.sort(drawn + np.random.default_rng([*seed, STREAMS["jitter"]]).random(len(drawn)))


def _summed(gaps: np.ndarray) -> np.ndarray:
    """Sum gaps to arrivals, keeping arrivals distinct where rounding would merge them.

    The order of distinct arrivals matters: at one instant SJF would take the shortest first.
    """
    arrived = np.cumsum(gaps)
    for i in np.flatnonzero(gaps[1:] > 0) + 1:
        arrived[i] = max(arrived[i], np.nextafter(arrived[i - 1], np.inf))
    return arrived


def _scaled(requests: Requests, scale: float, quirks: Quirks) -> np.ndarray:
    """Scale Azure's offsets in ms, read as seconds and rounded to 0.1 (the quirk) or as ms."""
    if quirks.milliseconds_as_seconds:
        return np.round(requests.arrived_at / scale, 1)
    return requests.arrived_at / 1000 / scale


def _box_runs(workload: LlmBoxes, quirks: Quirks) -> Iterator[SmallRun]:
    """Runs whose lengths are drawn from the box-plot statistics of one LLM."""
    low, q1, median, q3, high = llm_boxes().loc[workload.llm]
    n, rate = workload.jobs, workload.rate
    for seed in workload.seeds:
        for run in range(workload.runs):
            drawn = whole_second_poisson(np.random.RandomState([seed, run]), rate, n)
            rng = np.random.default_rng([seed, run, STREAMS["lengths"]])
            output = from_quartiles(n, low, q1, median, q3, high, rng)
            requests = Requests(drawn, np.ones_like(output), output)
            yield 0.0, seed, run, requests.arriving(_arrivals("", drawn, quirks, [seed, run, 0]))
