"""Every notebook of the project obeys the rules."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from browser import project_copy
from notebook_lint import lint
from ssjf.report import notebookfile

FOLDER = Path(__file__).parents[1] / "notebooks"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_obeys_the_rules(path):
    assert lint(path) == []
    notebookfile.parameters(path)


def test_no_two_notebooks_claim_one_number_or_one_figure():
    paths = list(FOLDER.glob("*.ipynb"))
    assert all(re.fullmatch(r"\d\d_[a-z_]+", path.stem) for path in paths)
    assert len({path.stem[:2] for path in paths}) == len(paths)
    about = [notebookfile.about(path) for path in paths]
    made = [
        (kind, name) for entry in about for kind in ("figures", "tables") for name in entry[kind]
    ]
    assert len(set(made)) == len(made)
    stored = {path.stem for path in (FOLDER.parent / "results" / "figures").glob("*.json")}
    assert stored == {name for kind, name in made if kind == "figures"}


def test_the_tour_leads_to_every_notebook():
    text = (FOLDER / "00_tour.ipynb").read_text()
    others = {path.name for path in FOLDER.glob("*.ipynb")} - {"00_tour.ipynb"}
    assert set(re.findall(r"\((\d\d_[a-z_]+\.ipynb)\)", text)) == others


def test_another_parameter_leaves_the_cited_figure_alone(tmp_path):
    """Plain papermill, as a reader would run it."""
    project_copy(tmp_path, "10_lengths.ipynb")
    cited = tmp_path / "results" / "figures" / "lengths.svg"
    before = cited.read_bytes()
    environment = {**os.environ, "SSJF_ROOT": str(tmp_path)}
    subprocess.run(
        [sys.executable, "-m", "papermill", "notebooks/10_lengths.ipynb", "out.ipynb", "-p",
         "marked", "gpt-4"], cwd=tmp_path, env=environment, check=True,
    )  # fmt: skip
    assert cited.read_bytes() == before
    other = tmp_path / "results" / "scratch" / "lengths" / "marked=gpt-4"
    assert (other / "figures" / "lengths.svg").read_bytes() != before
    assert "marked=gpt-4" in (tmp_path / "out.ipynb").read_text()
