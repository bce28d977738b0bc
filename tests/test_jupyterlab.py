"""A researcher opens a notebook in a real JupyterLab, runs all of it and sees the picture."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from browser import REPOSITORY, needs_browser, project_copy, run_in_lab

PLOT = "import matplotlib.pyplot as plt\nfig, ax = plt.subplots()\nax.plot([1, 2]);"


def errors(outputs):
    found = [output for cell in outputs for output in cell if output["output_type"] == "error"]
    return [f"{output['ename']}: {output['evalue']}" for output in found]


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@needs_browser
def test_a_plot_is_seen(tmp_path, home):
    book = new_notebook(cells=[new_code_cell("x = 1"), new_code_cell(PLOT)])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    folder = tmp_path / "work"
    folder.mkdir()
    nbformat.write(book, folder / "plot.ipynb")
    outputs = run_in_lab("plot.ipynb", folder, home)
    assert errors(outputs) == []
    assert outputs[0] == []
    assert any("image/png" in output.get("data", {}) for output in outputs[1])


@needs_browser
def test_the_tour(tmp_path, home):
    assert (REPOSITORY / "notebooks" / "00_tour.ipynb").is_file()
    folder = tmp_path / "work"
    folder.mkdir()
    project_copy(folder, "00_tour.ipynb")
    outputs = run_in_lab("notebooks/00_tour.ipynb", folder, home)
    assert errors(outputs) == []
