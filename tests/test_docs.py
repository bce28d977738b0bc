"""The pages under docs/."""

import ast
import json
import re
from collections import Counter
from pathlib import Path

from prometheus_client import generate_latest

from ssjf.serving.metrics import metrics
from ssjf.simulator.contract import Contract

ROOT = Path(__file__).parents[1]


def test_every_module_has_its_sentence():
    bullets = re.findall(r"^- `(ssjf/[^`]+\.py)`: \S", _page("modules"), re.MULTILINE)
    paths = [path for path in (ROOT / "ssjf").rglob("*.py") if _has_code(path)]
    modules = [path.relative_to(ROOT).as_posix() for path in paths]
    assert set(modules) <= set(bullets) and max(Counter(bullets).values()) == 1


def test_every_file_that_structure_names_exists():
    named = re.findall(
        r"`((?:ssjf|tests|notebooks|papers)/[^`]*)`", _page("structure") + _page("modules")
    )
    assert [name for name in named if not [*ROOT.glob(name)]] == []


def test_every_test_that_a_page_names_exists():
    named = {each for page in ROOT.glob("docs/*.md") for each in
             re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8"))}  # fmt: skip
    tests = "".join(file.read_text(encoding="utf-8") for file in ROOT.glob("tests/test_*.py"))
    defined = {*re.findall(r"^def (test_\w+)", tests, re.MULTILINE)}
    assert len(named) > 10 and named <= defined


def test_every_metric_is_explained_as_it_is_exposed():
    """The table of the page is what ``/metrics`` says of itself, word for word."""
    metrics()
    text = generate_latest().decode()
    helps = re.findall(r"^# HELP (ssjf_\w+) (.*?)\.?$", text, re.MULTILINE)
    kinds = dict(re.findall(r"^# TYPE (ssjf_\w+) (\w+)$", text, re.MULTILINE))
    exposed = {(name, kinds[name], words) for name, words in helps if not name.endswith("_created")}
    rows = re.findall(r"^\| `(ssjf_\w+)` \| (\w+) \| (.*) \|$", _page("serve"), re.MULTILINE)
    assert {(name, kind, words.replace("\\|", "|")) for name, kind, words in rows} == exposed


def test_dashboard_and_alerts_ask_for_metrics_that_are_exposed():
    metrics()
    exposed = {*re.findall(r"^# TYPE (ssjf_\w+)", generate_latest().decode(), re.MULTILINE)}
    parts = {f"{name}{end}" for name in exposed for end in ("", "_bucket", "_sum", "_count")}
    folder = ROOT / "docs" / "monitoring"
    board = json.loads((folder / "grafana.json").read_text())
    rules = (folder / "alerts.yml").read_text()
    asked = {expr for panel in board["panels"] for expr in (t["expr"] for t in panel["targets"])}
    alerts = re.findall(r"^ +expr: (.*)$", rules, re.MULTILINE)
    assert len(board["panels"]) == 12 and len(alerts) == rules.count("- alert: ") == 5
    for text in (*asked, *alerts):
        names = re.findall(r"\bssjf_\w+", text)
        assert names and {*names} <= parts, text
        assert text.count("(") == text.count(")") and text.count("{") == text.count("}")
    p99, p999 = re.findall(r"_ratio\{\S+\} > (\S+)", rules)
    assert str(Contract()) == f"p99={p99},p999={p999}"


def _page(name):
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def _has_code(path):
    """More than the docstring that marks a folder as a package."""
    return len(ast.parse(path.read_text()).body) > 1
