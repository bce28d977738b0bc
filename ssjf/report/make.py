"""Level A: notebooks, claims, README, docs and the report, from the committed raw runs."""

from pathlib import Path

import pandas as pd

from ssjf.report import claims, notebooks, readme
from ssjf.report import page as report


def make(jobs: int = 2, repository: str | None = None) -> tuple[pd.DataFrame, Path]:
    """Run every notebook strictly, judge every claim; returns (verdicts, the report's page)."""
    notebooks.run_all(jobs=jobs)
    verdicts = claims.check()
    claims.write(verdicts)
    readme.write(verdicts)
    return verdicts, report.build(verdicts, address=repository)
