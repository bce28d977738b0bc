"""The command line as a user calls it: in this process, or in one of its own."""

import os
import subprocess
import sys

import nbformat
from click.testing import CliRunner, Result
from nbformat.v4 import new_code_cell, new_notebook

from ssjf import report
from ssjf.cli import main
from ssjf.experiments.specs import spec_of

HEADER = "arrived_at,prompt_tokens,output_tokens"


def ssjf(*arguments: object) -> Result:
    """``ssjf ARGUMENTS`` in this process; what it raises but should not is raised."""
    return CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)


def refused(*arguments: object) -> str:
    """The one sentence with which the command refuses, having printed nothing else."""
    return one_sentence(ssjf(*arguments))


def one_sentence(result: Result) -> str:
    assert result.exit_code == 2, (result.exit_code, result.output)
    assert result.stderr.startswith("ssjf: ") and result.stderr.count("\n") == 1, result.stderr
    assert "Traceback" not in result.output
    return result.stderr.removeprefix("ssjf: ").strip()


def process(*arguments: object, **options) -> subprocess.CompletedProcess:
    """``ssjf ARGUMENTS`` in a process of its own; ``env`` is added to the environment."""
    options["env"] = os.environ | options.get("env", {})
    command = [sys.executable, "-m", "ssjf", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, **{"timeout": 600} | options)


def trace(path, rows=200, gap=1.0, output=100):
    """A csv trace: a request every ``gap`` seconds, of ``output`` tokens (a number or a list)."""
    lengths = output if isinstance(output, list) else [output] * rows
    lines = [f"{gap * i},1,{tokens}" for i, tokens in enumerate(lengths)]
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path


def changed(spec, **values):
    """Another specification, with these values in place of the first one's."""
    return spec_of(spec.as_json() | values, "a test")


def contents(folder):
    """Every file below a folder: its bytes and when it was written."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in files
    }


def notebook(root, **defaults):
    """A notebook in a repository at ``root`` ($SSJF_ROOT), as its own cells see it."""
    book = new_notebook(cells=[new_code_cell("", metadata={"tags": ["parameters"]})])
    book.metadata["ssjf"] = {"title": "T", "defaults": defaults, "figures": [], "tables": []}
    (root / "notebooks").mkdir(exist_ok=True)
    nbformat.write(book, root / "notebooks" / "00_book.ipynb")
    return report.Notebook("book", **defaults)
