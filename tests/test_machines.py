"""The files that set up other machines: they parse, and ask make for what it has."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
TARGETS = set(re.findall(r"^([\w$()./]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
TARGETS = {target.replace("$(VENV)", ".venv") for target in TARGETS}
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def asked_of_make(text):
    return re.findall(r"\bmake\b[\"', ]+([\w./]+)", text)


@pytest.mark.parametrize(
    "name", [".github/workflows/ci.yml", ".devcontainer/devcontainer.json", "Dockerfile"]
)
def test_make_has_what_is_asked_of_it(name):
    asked = asked_of_make(_without_comments(ROOT / name))
    assert asked and set(asked) <= TARGETS


def test_the_workflow_tests_and_executes_the_notebooks():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    commands = {name: [step.get("run") for step in job["steps"]] for name, job in jobs.items()}
    assert "make test" in commands["test"] and "make report" in commands["report"]
    assert jobs["report"]["steps"][-1]["with"]["path"] == "results/report"
    versions = {job["steps"][1]["with"]["python-version"] for job in jobs.values()}
    assert versions == {"3.11"}


def test_the_container_is_built_from_files_that_exist():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert (ROOT / ".devcontainer" / container["build"]["dockerfile"]).resolve().is_file()
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert "FROM python:3.11-slim-bookworm" in lines
    for line in lines:
        if line.startswith("COPY "):
            assert all((ROOT / source).exists() for source in line.split()[1:-1]), line


def test_binder_installs_an_extra_that_exists():
    script = ROOT / ".binder" / "postBuild"
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", script], check=True)
    (extra,) = re.findall(r"'\.\[(\w+)\]'", script.read_text())
    assert extra in EXTRAS and (ROOT / "constraints.txt").is_file()
    assert (ROOT / ".binder" / "runtime.txt").read_text() == "python-3.11\n"


def _without_comments(path):
    return "\n".join(re.sub(r"^\s*#.*", "", line) for line in path.read_text().splitlines())
