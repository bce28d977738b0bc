"""What README and the pages under docs/ show is what works."""

import re
import shlex
from pathlib import Path

import click
import numpy as np
import pandas as pd
import pytest
import yaml

from commands import ssjf
from ssjf.cli import main
from ssjf.report import notebookfile, notebooks, readme
from ssjf.scheduler import known_policies, policy
from ssjf.simulator.profile import profile
from ssjf.workload import synthetic
from ssjf.workload.synthetic import arrivals, rate_for

ROOT = Path(__file__).resolve().parents[1]
PAGES = {path.stem: path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]}
README = PAGES["README"]
TRACE = [
    "arrived_at,prompt_tokens,output_tokens",
    *(f"{i / 4},{10 + i},{100 - i}" for i in range(60)),
]


def blocks(page, language=""):
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_short_and_its_links_and_pictures_exist(page):
    assert len(PAGES[page].splitlines()) <= (190 if page == "modules" else 150)  # an index
    folder = ROOT if page == "README" else ROOT / "docs"
    for link in re.findall(r"\]\(([^)#]+)\)", PAGES[page]):
        assert link.startswith("http") or (folder / link).exists(), link
    for name in re.findall(r"`((?:notebooks|tests|papers)/[\w./]+)`", PAGES[page]):
        assert (ROOT / name).exists() or page == "retired", name


@pytest.mark.parametrize("page", PAGES)
def test_its_generated_parts_are_known(page, monkeypatch):
    monkeypatch.setenv("SSJF_ROOT", str(ROOT))
    monkeypatch.delenv("SSJF_RESULTS", raising=False)
    known = readme.parts(
        pd.read_csv(ROOT / "results" / "claims.csv", keep_default_na=True).fillna({"ours": ""})
    )
    assert set(re.findall(r"<!-- generated: (\w+) -->", PAGES[page])) <= set(known)


def _ssjf_lines():
    for page in PAGES:
        for block in blocks(page):
            for line in block.replace("\\\n", " ").splitlines():
                if found := re.search(r"\bbin/(ssjf .*)", line):
                    yield pytest.param(found.group(1).partition(" #")[0], id=f"{page}: {line[:50]}")


@pytest.mark.parametrize("line", list(_ssjf_lines()))
def test_the_commands_it_shows_have_these_options(line):
    words = shlex.split(re.sub(r"\[[^\]]*\]", "", line))[1:]
    command = main
    while isinstance(command, click.Group):
        command = command.get_command(None, words.pop(0))
        assert command is not None, line
    own = {name for option in command.params for name in option.opts}
    lets_through = command.context_settings.get("ignore_unknown_options")
    assert lets_through or {word for word in words if re.match("--?[a-z]", word)} <= own, line


def test_the_notebook_parameters_it_names_exist(monkeypatch):
    monkeypatch.setenv("SSJF_ROOT", str(ROOT))
    (name, given) = re.search(r'ssjf notebook (\w+) -p "([^"]+)"', README).groups()
    assert notebookfile.check_parameters(notebookfile.find(name), notebooks.parse([given]))
    name, line = re.search(r"papermill notebooks/(\w+)\.ipynb \S+ ([^`\n]+)", README).groups()
    pairs = [f"{key}={value}" for key, value in re.findall(r"-p (\S+) (\S+)", line)]
    assert notebookfile.check_parameters(notebookfile.find(name), notebooks.parse(pairs))


@pytest.mark.parametrize("page", ["README", "policies"])
def test_its_policy_and_its_profile_work(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (code,) = [block for block in blocks(page, "python") if "def patient" in block]
    Path("mine.py").write_text(code)
    Path("own.toml").write_text(blocks("simulate", "toml")[0])
    Path("trace.csv").write_text("\n".join(TRACE))
    assert policy("mine:patient").in_time == "any"
    options = ("trace.csv", "--policies", "fcfs,ssjf,mine:patient", "--slots", "4")
    result = ssjf("simulate", *options, "--profile", "own.toml")
    assert result.exit_code == 0 and "mine:patient" in result.output


@pytest.mark.parametrize(("kind", "name"), [("Moving", "soon"), ("AtArrival", "calm")])
def test_a_compiled_policy_of_ones_own_is_served(tmp_path, monkeypatch, kind, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (code,) = [block for block in blocks("policies", "python") if f"import {kind}" in block]
    Path(f"{name}.py").write_text(code)
    Path("trace.csv").write_text("\n".join(TRACE))
    result = ssjf("simulate", "trace.csv", "--policies", f"fcfs,{name}:{name}", "--slots", "1")
    assert result.exit_code == 0 and name in result.output
    dry = ssjf("serve", "MODEL", "--dry-run", "--policy", f"{name}:{name}")
    assert dry.exit_code == (0 if name == "calm" else 2)  # vLLM's priority cannot say what moves


def test_every_policy_is_described():
    described = set(re.findall(r"`([a-z-]+)(?:[:`])", PAGES["policies"]))
    assert set(known_policies()) <= described


def test_its_recommendation_is_that_of_the_made_up_requests(tmp_path):
    """5,000 requests of synthetic lengths, Poisson at ρ 0.9 on 8 slots, seed 0."""
    rng = np.random.default_rng(0)
    made_up = synthetic.requests(5000, rng)
    alone = profile("ssjf-paper").alone_seconds(made_up.prompt_tokens, made_up.output_tokens)
    rate = rate_for(0.9, float(alone.mean()), 8)
    columns = {
        "arrived_at": arrivals("poisson", 5000, rate, rng),
        "prompt_tokens": made_up.prompt_tokens,
        "output_tokens": made_up.output_tokens,
    }
    pd.DataFrame(columns).to_csv(tmp_path / "TRACE.csv", index=False)
    advice = ssjf("simulate", tmp_path / "TRACE.csv", "--slots", 8).stdout.splitlines()[-1]
    assert f"```\n{advice}\n```" in README


def test_what_is_said_of_the_contract_tuner_is_what_its_runs_say():
    """README: in every cell of a steady load, for more than half of the gain."""
    said = "in every cell with a steady load and still earns more than half of the gain"
    board = pd.read_csv(ROOT / "results" / "tables" / "arena_board.csv").set_index("policy")
    tuner = board.loc["contract tuner (ours)"]
    assert said in README and tuner["and p99.9 within 10 %"] == tuner["cells"] > 50
    assert 50 < tuner["share of SSJF's gain, median (%)"] < 70


def test_its_python_works(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("TRACE.csv").write_text("\n".join(TRACE))
    (code,) = [block for block in blocks("README", "python") if "simulate(" in block]
    exec(compile(code, "README.md", "exec"), {})
    assert float(capsys.readouterr().out) > 0


def test_its_first_screen_says_what_why_and_how():
    screen = "\n".join(README.splitlines()[:40])
    assert all(
        words in screen for words in ("make report", "make test", "arXiv 2404.08509", ".png")
    )


def test_the_make_targets_it_names_exist():
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES.values():
        for target in re.findall(r"`?make ([a-z]+)\b", "\n".join(re.findall(r"`[^`]+`", page))):
            assert re.search(rf"^{target}:", makefile, flags=re.M), target


def test_the_citation_names_all_the_papers_authors():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]
    assert [len(paper["authors"]) for paper in cited] == [10, 2]
