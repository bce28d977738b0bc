"""The generated parts of README.md and docs/, so that nobody types a reproduced number.

A part stands between ``<!-- generated: NAME -->`` and ``<!-- end: NAME -->``; NAME is one of
``parts`` or a table under results/tables.
"""

import ast
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from ssjf.experiments import paths
from ssjf.files import whole_file
from ssjf.report import notebookfile
from ssjf.report.claims import claims
from ssjf.report.figures import cell, markdown

PACKAGE = Path(__file__).parents[1]
ROOMS = ("", "scheduler", "workload", "proxy", "analysis", "simulator", "harness", "serving",
         "experiments", "report", "cli")  # fmt: skip
TELLING = [
    "ssjf.rate.oracle.dynamic",
    "ssjf.rate.jct.none",
    "ssjf.headline.throughput.makespan",
    "ssjf.batch.continuous",
    "ssjf.unchanged",
]


def pages() -> list[Path]:
    """README.md and the pages under docs/."""
    return [*paths.root().glob("README.md"), *sorted((paths.root() / "docs").glob("*.md"))]


def write(verdicts: pd.DataFrame, where: Iterable[Path] | None = None) -> None:
    """Update the generated parts of all pages from the verdicts and tables."""
    generated = parts(verdicts)
    for page in pages() if where is None else where:
        text = page.read_text(encoding="utf-8")
        new = replaced(text, generated)
        if new != text:
            with whole_file(page) as temporary:
                temporary.write_text(new, encoding="utf-8")


def replaced(text: str, generated: dict[str, str]) -> str:
    """Replace each marked part of a text."""
    for name, body in generated.items():
        pattern = rf"(<!-- generated: {re.escape(name)} -->\n).*?(<!-- end: {re.escape(name)} -->)"
        new = body.replace("\\", r"\\")
        text = re.sub(pattern, rf"\g<1>{new}\g<2>", text, flags=re.DOTALL)
    return text


def parts(verdicts: pd.DataFrame) -> dict[str, str]:
    """The generated parts by name."""
    rows = verdicts.set_index("claim_id", drop=False)
    known = claims()
    tables = (paths.results() / "tables").glob("*.md")
    return {
        "counts": f"{summary(verdicts)}.\n",
        "telling": _telling(rows, known),
        "verdicts": _verdicts(verdicts),
        "index": _index(known),
        "artifact": _artifact(known),
        "modules": _modules(),
        **{file.stem: file.read_text().rstrip() + "\n" for file in tables},
    }


def summary(verdicts: pd.DataFrame) -> str:
    """Count the claims by verdict, as text."""
    counts = verdicts["verdict"].value_counts()
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items())


def _paper(row: Any) -> str:
    return f"{cell(row['paper_value'])} {row['unit']}"


def _ours(row: Any) -> str:
    if pd.isna(row["value"]):
        return "–"
    text = f"{cell(row['value'])} {row['unit']}"
    return text if pd.isna(row["low"]) else f"{text} [{cell(row['low'])}, {cell(row['high'])}]"


def _bracket(row: Any) -> str:
    if pd.isna(row["bracket_low"]):
        return ""
    return f"{cell(row['bracket_low'])} to {cell(row['bracket_high'])}"


def _telling(rows: pd.DataFrame, known: dict[str, Any]) -> str:
    head = ["the paper says", "paper", "ours [95 % interval]", "verdict"]
    lines = []
    for name in TELLING:
        row, verdict = rows.loc[name], rows.loc[name, "verdict"]
        if row["ours"]:
            verdict += f": {row['ours']}"
        if bracket := _bracket(row):
            verdict += f"; {bracket} at the quality of the unpublished ones"
        paper = _paper(row)
        if known[name].get("relation") == "above":
            paper = f"above {paper}"
        lines.append([known[name]["what"], paper, _ours(row), verdict])
    return markdown(pd.DataFrame(lines, columns=head))


def _verdicts(verdicts: pd.DataFrame) -> str:
    rows = verdicts.to_dict("records")
    table = {
        "claim": [f"`{row['claim_id']}`" for row in rows],
        "paper": map(_paper, rows),
        "ours [95 % interval]": map(_ours, rows),
        "bracket": map(_bracket, rows),
        "verdict": verdicts["verdict"],
        "ours measures": verdicts["ours"],
    }
    return markdown(pd.DataFrame(table))


def _index(known: dict[str, Any]) -> str:
    """Table of notebooks: figures and tables, claims on their experiments, commands."""
    lines = []
    for name in notebookfile.names():
        path = notebookfile.find(name)
        about = notebookfile.about(path)
        source = "\n".join(cell.source for cell in notebookfile.code(notebookfile.read(path)))
        about_it = {
            key: claim
            for key, claim in known.items()
            if f'"{claim.get("measure", {}).get("experiment")}"' in source
        }
        made = ", ".join(f"`{made}`" for made in dict.fromkeys(about["figures"] + about["tables"]))
        runs = {claim["command"]: claim["minutes"] for claim in about_it.values()}
        again = "; ".join(f"`{command}` ({minutes:g})" for command, minutes in runs.items())
        groups = ", ".join(f"`{group}`" for group in _groups(about_it))
        lines.append([f"`{name}`", about["title"], made or "–", groups or "–", again or "–"])
    head = ["notebook", "what it shows", "figures and tables", "claims", "again (minutes)"]
    return markdown(pd.DataFrame(lines, columns=head))


def _groups(known: dict[str, Any]) -> list[str]:
    """Group claims by the part before their last dot: ``ssjf.rate.jct.*``."""
    groups: dict[str, list[str]] = {}
    for key in known:
        groups.setdefault(key.rpartition(".")[0], []).append(key)
    return [f"{group}.*" if len(keys) > 1 else keys[0] for group, keys in groups.items()]


def _artifact(known: dict[str, Any]) -> str:
    head = ["claim", "again", "minutes", "reproduced if"]
    lines = []
    for name, claim in known.items():
        held = f"within {claim.get('tolerance')} of {claim['value']} {claim['unit']}"
        if claim.get("relation") == "above":
            held = f"surely above {claim['value']} {claim['unit']}"
        held = "not comparable" if "ours" in claim else held
        lines.append([f"`{name}`", f"`{claim['command']}`", f"{claim['minutes']:g}", held])
    return markdown(pd.DataFrame(lines, columns=head))


def _modules() -> str:
    """Every module with the first sentence of its docstring, by folder."""
    lines = []
    for room in ROOMS:
        folder = PACKAGE / room
        lines.append(f"\n**`ssjf/{room}`**: {_sentence(folder / '__init__.py')}\n\n")
        for file in sorted(folder.rglob("*.py") if room else folder.glob("*.py")):
            if file.stem != "__init__":
                lines.append(f"- `{file.relative_to(PACKAGE.parent)}`: {_sentence(file)}\n")
    return "".join(lines)


def _sentence(module: Path) -> str:
    """The first sentence of a module's docstring, in markdown."""
    text = " ".join((ast.get_docstring(ast.parse(module.read_text())) or "").split())
    return text.replace("``", "`").partition(". ")[0].rstrip(".:") + "."
