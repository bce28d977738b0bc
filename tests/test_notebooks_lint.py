"""Every notebook of the project obeys the rules."""

from pathlib import Path

import pytest

from notebook_lint import lint
from ssjf.report import notebooks

FOLDER = Path(__file__).parents[1] / "notebooks"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_obeys_the_rules(path):
    assert lint(path) == []
    notebooks.parameters(path)


def test_no_two_notebooks_claim_one_place_or_one_figure():
    about = [notebooks.about(path) for path in FOLDER.glob("*.ipynb")]
    orders = [entry["order"] for entry in about]
    made = [
        (kind, name) for entry in about for kind in ("figures", "tables") for name in entry[kind]
    ]
    assert len(set(orders)) == len(orders)
    assert len(set(made)) == len(made)
