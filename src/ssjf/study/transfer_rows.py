"""Rows of measurements between LLMs, with intervals over the prompts."""

from collections.abc import Callable, Mapping

import pandas as pd

from ssjf.request import IntArray
from ssjf.study.quality_intervals import resampled

Named = Mapping[tuple[str, str, str], float]  # (quantity, of, llm): value
ALL, LISTED = "all", "listed"  # of which LLMs a summary is


def resampled_rows(
    measure: Callable[[IntArray], Named], n: int, resamples: int, seed: int
) -> pd.DataFrame:
    """Rows quantity, of, llm, value, low, high of ``measure(rows)``: ``quality.resampled``."""

    def flat(rows: IntArray) -> Mapping[str, float]:
        return {"\t".join(key): value for key, value in measure(rows).items()}

    found = resampled(flat, n, resamples=resamples, seed=seed)
    keys = [key.split("\t") for key in found.pop("metric")]
    return pd.concat([pd.DataFrame(keys, columns=["quantity", "of", "llm"]), found], axis=1)
