"""Two answers of one LLM to the same prompts: how well the one predicts the other.

From the sampling reports of Open Assistant (LAION-AI/Open-Assistant model evaluation; Apache-2.0):
gpt-3.5-turbo answered 250 prompts twice.
"""

from typing import Any

import numpy as np
import pandas as pd

from ssjf.errors import InputError, unknown
from ssjf.study.proxy_runs import CLASS_PERCENTILES
from ssjf.workload.catalogue import search

FILES = ("oasst_eval_prompts.parquet", "oasst_eval_lengths.parquet")


def rows(spec: dict[str, Any]) -> pd.DataFrame:
    """One row per prompt: the first answer's length, and the second's as its prediction."""
    found = search([FILES])
    if found is None:
        raise InputError(f"{' and '.join(FILES)} are not here; set SSJF_DATA to their folder")
    prompts, lengths = (pd.read_parquet(path) for path in found[1])
    llm = spec["workload"]["llm"]
    if llm not in set(lengths["model"]):
        raise unknown("LLM", llm, set(lengths["model"]))
    wide = lengths[lengths["model"] == llm].pivot_table("output_tokens", "prompt_id", "sample")
    first, second = (wide[sample].to_numpy(np.float64) for sample in (0, 1))
    hashes = prompts.set_index("prompt_id")["prompt_hash"].loc[wide.index].to_numpy()
    edges = np.percentile(first, CLASS_PERCENTILES)
    return pd.DataFrame(
        {
            "x": np.float32(0),
            "seed": np.int32(0),
            "run": np.int32(0),
            "prompt_hash": hashes,
            "conversation": hashes,
            "turn": np.int16(1),
            "output_tokens": first.astype(np.int32),
            "true_class": np.searchsorted(edges, first, side="right").astype(np.int8),
            "predicted_class": np.searchsorted(edges, second, side="right").astype(np.int8),
            "predicted_tokens": second.astype(np.float32),
        }
    )
