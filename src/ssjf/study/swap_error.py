"""What swapping costs in exactness: a run that swaps against one that computes again."""

from collections.abc import Mapping

import numpy as np
import pandas as pd


def relative_errors(
    exact: Mapping[str, np.ndarray], swapped: Mapping[str, np.ndarray]
) -> pd.DataFrame:
    """Per token that both runs said: |swapped - exact| / |exact| of attention and logits.

    Both as ``engine.vllm.probe.Probe.arrays`` gives them. Columns request, token, attention (all
    layers together), logits, and agrees: is the likeliest token the same?
    """
    runs = exact, swapped
    places = [{tuple(row): i for i, row in enumerate(run["probe_rows"])} for run in runs]
    both = sorted(places[0].keys() & places[1].keys())
    rows = [[at[key] for key in both] for at in places]
    found = pd.DataFrame(both, columns=["request", "token"])
    for name in ("attention", "logits"):
        a, b = (
            run[f"probe_{name}"][at].reshape(len(both), -1)
            for run, at in zip(runs, rows, strict=True)
        )
        found[name] = np.linalg.norm(b - a, axis=1) / np.linalg.norm(a, axis=1)
    likeliest = [run["probe_logits"][at].argmax(1) for run, at in zip(runs, rows, strict=True)]
    return found.assign(agrees=likeliest[0] == likeliest[1])
