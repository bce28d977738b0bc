"""Output lengths of 25 LLMs as box-plot statistics.

Read from the box-plot figure in the SSJF authors' public repository
(``characterization/token_length_boxplots_all.pdf``, LMSYS-Chat-1M): quartiles, and whiskers at
1.5 times the interquartile range; what lies beyond a whisker is not known.
"""

from importlib import resources

import pandas as pd

COLUMNS = ("low", "q1", "median", "q3", "high")


def llm_boxes() -> pd.DataFrame:
    """Shape (25, 5): low whisker, q1, median, q3, high whisker in tokens, indexed by LLM."""
    with (resources.files("ssjf.workload") / "data/llm_token_quartiles.csv").open() as file:
        return pd.read_csv(file, index_col="llm")[list(COLUMNS)]
