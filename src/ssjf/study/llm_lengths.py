"""The lengths of many LLMs' answers to the same prompts: AlpacaEval's public results.

Two files of ``$SSJF_DATA``: the 805 prompts, and 225 LLMs' lengths in tokens of cl100k_base. They
are made from ``results/*/model_outputs.json`` of tatsu-lab/alpaca_eval, commit cd543a1 (data: CC
BY-NC 4.0).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ssjf.errors import InputError, unknown
from ssjf.request import FloatArray, IntArray
from ssjf.workload.catalogue import folders, search

FILES = {
    "alpaca_eval_prompts.parquet": (
        "358d708966d8e8c7d0a84e058aacb1ec67268592655b9731907fde95aba07b7e"
    ),
    "alpaca_eval_lengths.parquet": (
        "df51907964ea8a862a6a7e8939f1f177a0cb48661a65612753390078731d6808"
    ),
}


@dataclass(frozen=True)
class LlmLengths:
    """n prompts that each of m LLMs answered; output_tokens: shape (n, m), at least 1."""

    prompts: list[str]
    llms: list[str]
    output_tokens: FloatArray

    def at(self, names: Sequence[str]) -> IntArray:
        """The columns of the LLMs of these names."""
        for name in names:
            if name not in self.llms:
                raise unknown("LLM", name, self.llms)
        return np.array([self.llms.index(name) for name in names], np.int64)


def absent() -> str | None:
    """Why the lengths cannot be read on this machine, None where they can."""
    if search([tuple(FILES)]):
        return None
    return f"no {' and '.join(FILES)} in {' or '.join(map(str, folders()))}"


def load() -> LlmLengths:
    """The prompts that every LLM answered: an empty answer has no length that could be a job's."""
    here = search([tuple(FILES)])
    if here is None:
        raise InputError(f"the lengths of many LLMs are not here: {absent()}; set SSJF_DATA")
    prompts, lengths = (_checked(path) for path in here[1])
    wide = lengths.pivot(index="prompt_id", columns="model", values="output_tokens")
    wide = wide.reindex(prompts["prompt_id"])
    answered = (wide > 0).all(axis=1).to_numpy()
    texts = prompts["prompt"][answered].tolist()
    return LlmLengths(texts, [*wide.columns], wide[answered].to_numpy(np.float64))


def _checked(path: Path) -> pd.DataFrame:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if sha256 != FILES[path.name]:
        raise InputError(f"{path} is not the file it should be: its sha256 is {sha256}")
    return pd.read_parquet(path)
