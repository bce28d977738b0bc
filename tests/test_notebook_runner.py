"""The runner ends green only where everything ran and was written: one tiny notebook each."""

import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from notebook_lint import lint
from ssjf.errors import InputError
from ssjf.report import notebookfile, notebooks

DEFAULTS = {"load": 0.9, "seed": 1, "policies": ["fcfs", "sjf"], "name": "a", "quick": False}
PARAMETERS = """load: float = 0.9  # utilisation
seed: int = 1  # of the draws
policies: list[str] = ['fcfs', 'sjf']  # orders
name: str = 'a'  # a name
quick: bool = False  # fewer runs"""
SAVE = """
from ssjf import report
import matplotlib.pyplot as plt
fig, ax = plt.subplots()
ax.plot([0, 1], [0, load], **report.look("fcfs"))
"""


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    for folder in ("notebooks", "papers"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("SSJF_ROOT", str(tmp_path))
    monkeypatch.delenv("SSJF_RESULTS", raising=False)
    return tmp_path


def written(project, *cells, name="nb", parameters=PARAMETERS, figures=(), tables=(), **about):
    """A clean notebook with the given code cells after its claim and parameters."""
    book = new_notebook(cells=[new_markdown_cell("# A claim")])
    book.cells += [new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    book.cells += [new_code_cell(cell) for cell in cells]
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    promise = {"title": "T", "figures": list(figures), "tables": list(tables)}
    promise |= {"defaults": DEFAULTS} if parameters == PARAMETERS else {}
    book.metadata["ssjf"] = {**promise, **about}
    path = project / "notebooks" / f"{name}.ipynb"
    nbformat.write(book, path)
    return path


def left(project):
    """What lies in results/executed, hidden files too."""
    folder = project / "results" / "executed"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


# Parameters


def test_parameters_are_read_not_run(project):
    path = written(project)
    assert notebookfile.parameters(path) == DEFAULTS


@pytest.mark.parametrize("cell", ["n = 2 * 3", "n = list()", "import os", "a, b = 1, 2", "n ="])
def test_parameters_are_plain_literals(project, cell):
    with pytest.raises(InputError, match="nothing but names set to plain literals"):
        notebookfile.parameters(written(project, parameters=cell))


def test_one_cell_of_parameters(project):
    path = written(project)
    book = nbformat.read(path, as_version=4)
    del book.cells[1]
    nbformat.write(book, path)
    with pytest.raises(InputError, match="must have one cell tagged 'parameters', not 0"):
        notebookfile.parameters(path)


def test_a_misspelt_parameter_raises_and_lists_the_known(project):
    message = "unknown parameter of nb.ipynb 'laod'; known: load, name, policies, quick, seed"
    with pytest.raises(InputError, match=message):
        notebooks.run(written(project), {"laod": 0.5})
    assert left(project) == []


@pytest.mark.parametrize(
    "given",
    [{"load": "0.5"}, {"seed": 1.5}, {"seed": True}, {"quick": 1}, {"policies": "fcfs"},
     {"policies": [1]}, {"name": 3}],
)  # fmt: skip
def test_a_wrong_type_raises(project, given):
    with pytest.raises(InputError, match=r"^parameter '\w+' of nb.ipynb must be .*, not "):
        notebooks.run(written(project), given)


def test_a_whole_number_will_do_for_a_float(project):
    values = notebookfile.check_parameters(written(project), {"load": 1, "policies": []})
    assert values == {"load": 1.0, "policies": []}
    assert isinstance(values["load"], float)


# Runs


def test_a_clean_run_with_parameters(project):
    save = (
        "report.Notebook('nb', name=name).save(fig, 'f', caption=name, protocol='both', runs=['r'])"
    )
    path = written(project, SAVE, save, "import os; assert os.getcwd() == " + repr(str(project)),
                   figures=["f"])  # fmt: skip
    result = notebooks.run("nb", {"name": "given"})
    assert result.name == "nb" and result.seconds > 0
    apart = project / "results" / "scratch" / "nb" / "name=given"
    assert result.output_path == apart / "nb.ipynb" and left(project) == []
    assert not (project / "results" / "figures").exists()
    assert "given" in (apart / "figures" / "f.json").read_text()
    made = [apart / "figures" / f"f.{form}" for form in ("pdf", "svg", "png", "json")]
    first = [file.read_bytes() for file in made]
    # a figure that is made again unchanged is fresh, and no byte of it differs
    notebooks.run(path, {"name": "given"})
    assert [file.read_bytes() for file in made] == first


def test_sys_exit_is_a_failure(project):
    path = written(project, "import sys", "sys.exit()", "x = 1")
    with pytest.raises(notebookfile.NotebookError, match=r"nb.ipynb, code cell 3: SystemExit"):
        notebooks.run(path)
    assert left(project) == []


def test_a_failing_cell_is_named(project):
    path = written(project, "x = 1", "raise KeyError('jct')")
    with pytest.raises(
        notebookfile.NotebookError, match=r"^nb.ipynb, code cell 3: KeyError: 'jct'$"
    ):
        notebooks.run(path, {"seed": 2})
    assert left(project) == []


def test_a_failure_keeps_the_last_good_copy(project):
    notebooks.run(written(project, "x = 1"))
    with pytest.raises(notebookfile.NotebookError):
        notebooks.run(written(project, "1 / 0"))
    assert left(project) == ["nb.ipynb"]
    assert "1 / 0" not in (project / "results" / "executed" / "nb.ipynb").read_text()


def test_a_promised_figure_must_be_written_by_this_run(project):
    save = "report.Notebook('nb').save(fig, 'f', caption='c', protocol='both', runs=['r'])"
    notebooks.run(written(project, SAVE, save, figures=["f"]))
    message = "promises f.pdf, f.svg, f.png, f.json but did not write it"
    with pytest.raises(notebookfile.NotebookError, match=message):
        notebooks.run(written(project, SAVE, figures=["f"]))
    with pytest.raises(notebookfile.NotebookError, match=r"promises t.csv, t.md, t.json"):
        notebooks.run(written(project, SAVE, tables=["t"]))


def test_a_dead_kernel_leaves_nothing_half_written(project):
    path = written(project, "x = 1", "import os; os._exit(1)")
    with pytest.raises(notebookfile.NotebookError, match=r"nb.ipynb, code cell 3: DeadKernelError"):
        notebooks.run(path)
    assert left(project) == []


def test_a_cell_that_takes_too_long(project):
    path = written(project, "import time; time.sleep(60)")
    with pytest.raises(
        notebookfile.NotebookError, match=r"nb.ipynb, code cell 2: CellTimeoutError"
    ):
        notebooks.run(path, timeout_seconds=2)
    assert left(project) == []


def test_a_cell_whose_answer_never_comes_is_tried_once_more(project, monkeypatch):
    monkeypatch.setattr(notebooks, "_FIRST_TRY_SECONDS", 3)
    first = "import os, time; there = os.path.exists('tried'); open('tried', 'w').close()"
    notebooks.run(written(project, first, "time.sleep(0 if there else 600)"))
    assert (project / "tried").exists()


def test_all_notebooks_run_even_if_one_fails(project):
    here = Path.cwd()
    inside = f"import os; assert os.path.samefile('.', {str(project)!r})"
    written(project, inside, name="last", order=3)
    written(project, "y = 1", name="first", order=2)
    assert notebookfile.names() == ["first", "last"]
    assert [result.name for result in notebooks.run_all()] == ["first", "last"]
    written(project, "1 / 0", name="broken", order=1)
    message = r"1 of 2 notebooks failed: broken.ipynb, code cell 2: ZeroDivisionError"
    with pytest.raises(notebookfile.NotebookError, match=message):
        notebooks.run_all(["broken", "last"])
    assert Path.cwd() == here


def test_an_unknown_notebook(project):
    written(project)
    with pytest.raises(InputError, match="unknown notebook 'fig9'; known: nb"):
        notebooks.run_all(["fig9"])
    with pytest.raises(InputError, match="jobs must be 1 or more"):
        notebooks.run_all(jobs=0)


def test_a_file_that_is_no_notebook(project):
    path = project / "notebooks" / "nb.ipynb"
    path.write_text("not json")
    with pytest.raises(InputError, match=r"nb.ipynb is not a notebook"):
        notebooks.run(path)


# Lint


def test_a_clean_notebook_has_no_lint(project):
    assert lint(written(project, "import json", "for x in [1]:\n    print(x)")) == []


@pytest.mark.parametrize(
    ("cell", "rule"),
    [
        ("def f(): pass", "def belongs in the library"),
        ("class A: pass", "class belongs in the library"),
        ("f = lambda x: x", "a named lambda"),
        ("while x:\n    pass", "while loop"),
        ("open('x')", r"open\(\) is not for notebooks"),
        ("import pathlib", "pathlib must not be imported"),
        ("\n".join(["x = 1"] * 41), "41 lines are more than 40"),
        ("try:\n    pass\nexcept ValueError:\n    pass", "try belongs"),
        ("fig.savefig('x.pdf')", r"savefig\(\) is not for notebooks"),
        ("%matplotlib inline", "not plain Python"),
        ("!ls", "not plain Python"),
        ("%pip install x", "not plain Python"),
        ("get_ipython().system('ls')", "get_ipython"),
        ("import subprocess", "subprocess must not be imported"),
        ("from vllm import LLM", "vllm must not be imported"),
    ],
)
def test_logic_is_not_for_notebooks(project, cell, rule):
    found = lint(written(project, "x = 1", cell))
    assert found and all(line.startswith("code cell 3: ") for line in found)
    assert any(re.search(rule, line) for line in found)


def test_lint_of_the_page(project):
    path = written(project, *["x = 1"] * 9, parameters="x = 1")
    book = nbformat.read(path, as_version=4)
    book.cells = book.cells[1:]
    book.cells[0].metadata.pop("tags")
    book.cells[1].execution_count = 4
    book.metadata = {"kernelspec": {"name": "venv"}, "papermill": {}}
    nbformat.write(book, path)
    assert lint(path) == [
        "the first cell must be markdown and state the claim",
        "10 code cells are more than 9",
        "0 code cells are tagged 'parameters', not one",
        "the kernel must be named 'python3', not 'venv'",
        "papermill's metadata must be stripped",
        "the metadata lacks ssjf.title",
        "the metadata lacks ssjf.figures, a list of names",
        "the metadata lacks ssjf.tables, a list of names",
        "code cell 2: outputs and execution counts must be stripped",
    ]
