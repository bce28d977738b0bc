"""The pages under docs/."""

import json
import re
from pathlib import Path

import promql_parser
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client import generate_latest

from ssjf.serving.metrics import metrics
from ssjf.simulator.contract import Contract

ROOT = Path(__file__).parents[1]


def test_every_module_has_its_sentence():
    bullets = re.findall(r"^- `(ssjf/[^`]+\.py)`: [A-Z`].{10}", _page("modules"), re.MULTILINE)
    paths = [path for path in (ROOT / "ssjf").rglob("*.py") if path.stem != "__init__"]
    modules = [path.relative_to(ROOT).as_posix() for path in paths]
    assert sorted(modules) == sorted(bullets)


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
    [group] = yaml.safe_load(rules)["groups"]
    alerts = [rule["expr"] for rule in group["rules"]]
    assert len(board["panels"]) == 12 and len(alerts) == 5
    for text in (*asked, *alerts):
        names = re.findall(r"\bssjf_\w+", text)
        assert names and {*names} <= parts, text
        promql_parser.parse(text)  # a ValueError for what Prometheus would not take
    keys = {"alert", "expr", "labels", "annotations"}
    assert all(rule.keys() - {"for"} == keys for rule in group["rules"])
    p99, p999 = re.findall(r"_ratio\{\S+\} > (\S+)", rules)
    assert str(Contract()) == f"p99={p99},p999={p999}"


def test_grafanas_own_types_hold_all_that_the_dashboard_says():
    board = json.loads((ROOT / "docs" / "monitoring" / "grafana.json").read_text())
    register_default_plugins()
    read = json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder))
    assert list(_lost(board, read)) == []
    assert list(_lost({"title": 1, "colour": 2}, {"title": 1})) == ["/colour"]


def _lost(given, read, at=""):
    """Where something of the first is not in the second, which may have more."""
    if isinstance(given, dict):
        for key, value in given.items():
            yield from _lost(value, read[key], f"{at}/{key}") if key in read else [f"{at}/{key}"]
    elif isinstance(given, list) and len(given) == len(read):
        for i, (one, other) in enumerate(zip(given, read, strict=True)):
            yield from _lost(one, other, f"{at}/{i}")
    elif given != read:
        yield at


def _page(name):
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
