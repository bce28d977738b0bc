"""Online calibration inside a simulated run, whose finish times depend on what it says."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ssjf.proxy.calibration import Calibrator
from ssjf.request import Completions, FloatArray, IntArray


def calibrated_by_passes(
    predicted: FloatArray,
    groups: IntArray,
    serve: Callable[[FloatArray], Completions],
    options: dict[str, Any],
) -> tuple[FloatArray, list[Completions]]:
    """Predictions corrected when a request arrives, and the runs that led there, the last theirs.

    What has finished by an arrival depends on the order, and the order on the corrections: the
    run is served with the predictions as they are, corrected by its finish times, served again,
    and so ``passes`` times. ``groups``, shape (n,): requests of one group share a calibrator.
    """
    found, runs = predicted, [serve(predicted)]
    for _ in range(options["passes"]):
        found = corrected(predicted, groups, runs[-1], options)
        runs.append(serve(found))
    return found, runs


def corrected(
    predicted: FloatArray, groups: IntArray, done: Completions, options: dict[str, Any]
) -> FloatArray:
    """Each prediction as its group's calibrator corrects it when the request arrives.

    A calibrator knows what has finished by then, and is asked once per ``every`` arrivals.
    """
    requests, every = done.requests, options["every"]
    online = [
        Calibrator(options["window"], options["method"]) for _ in range(int(groups.max()) + 1)
    ]
    order = np.argsort(done.finished_at, kind="stable")
    finished = done.finished_at[order]
    columns = (column[order].tolist() for column in (groups, predicted, requests.output_tokens))
    by_finish = [*zip(*columns, strict=True)]
    found, seen = predicted.copy(), 0
    for start in range(0, len(predicted), every):
        until = int(np.searchsorted(finished, requests.arrived_at[start], side="right"))
        for group, said, truth in by_finish[seen:until]:
            online[group].observe(said, truth)
        seen = until
        block = np.arange(start, min(start + every, len(predicted)))
        for group in np.unique(groups[block]):
            rows = block[groups[block] == group]
            found[rows] = online[group].calibrate(predicted[rows])
    return found
