"""The pages under docs/."""

import ast
import re
from collections import Counter
from pathlib import Path

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


def _page(name):
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def _has_code(path):
    """More than the docstring that marks a folder as a package."""
    return len(ast.parse(path.read_text()).body) > 1
