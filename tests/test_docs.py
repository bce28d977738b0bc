"""The pages under docs/."""

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_structure_names_every_module_once():
    bullets = re.findall(r"^- `(ssjf/[^`]+\.py)`: \S", _page("structure"), re.MULTILINE)
    modules = [path.relative_to(ROOT).as_posix() for path in (ROOT / "ssjf").rglob("*.py")]
    assert Counter(bullets) == Counter(modules)


def test_every_file_that_structure_names_exists():
    named = re.findall(r"`((?:ssjf|tests|notebooks|papers)/[^`]*)`", _page("structure"))
    assert [name for name in named if not [*ROOT.glob(name)]] == []


def _page(name):
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
