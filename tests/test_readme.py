"""What the README shows is what works."""

import re
from pathlib import Path

import pytest

from commands import ssjf
from ssjf.report import notebooks
from ssjf.scheduler import policy

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_notebook_parameters_it_names_exist(monkeypatch):
    monkeypatch.setenv("SSJF_ROOT", str(ROOT))
    (name, given) = re.search(r'ssjf notebook (\w+) -p "([^"]+)"', README).groups()
    assert notebooks.check_parameters(notebooks.find(name), notebooks.parse([given]))
    name, line = re.search(r"papermill notebooks/(\w+)\.ipynb \S+ ([^`]+)`", README).groups()
    pairs = [f"{key}={value}" for key, value in re.findall(r"-p (\S+) (\S+)", line)]
    assert notebooks.check_parameters(notebooks.find(name), notebooks.parse(pairs))


def test_its_policy_and_its_profile_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (code,) = [block for block in blocks("python") if "def patient" in block]
    Path("mine.py").write_text(code)
    Path("own.toml").write_text(blocks("toml")[0])
    rows = [f"{i / 4},{10 + i},{100 - i}" for i in range(60)]
    Path("trace.csv").write_text("\n".join(["arrived_at,prompt_tokens,output_tokens", *rows]))
    assert policy("mine:patient").in_time == "any"
    asked = ("trace.csv", "--policies", "fcfs,ssjf,mine:patient", "--slots", "4")
    result = ssjf("simulate", *asked, "--profile", "own.toml")
    assert result.exit_code == 0 and "mine:patient" in result.output


def test_its_python_works(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [f"{i / 4},10,{100 - i}" for i in range(60)]
    Path("TRACE.csv").write_text("\n".join(["arrived_at,prompt_tokens,output_tokens", *rows]))
    (code,) = [block for block in blocks("python") if "simulate(" in block]
    exec(compile(code, "README.md", "exec"), {})
    assert float(capsys.readouterr().out) > 0


@pytest.mark.parametrize(
    "command", ["make report", "make test", "make resimulate", "make retrain", "make lab"]
)
def test_the_make_targets_it_names_exist(command):
    assert command in README
    assert re.search(rf"^{command.split()[1]}:", (ROOT / "Makefile").read_text(), flags=re.M)
