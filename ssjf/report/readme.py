"""The generated parts of README.md: nobody types a reproduced number.

A part stands between ``<!-- generated: NAME -->`` and ``<!-- end: NAME -->``.
"""

import re
from pathlib import Path

import pandas as pd

from ssjf.experiments import paths
from ssjf.files import whole_file
from ssjf.report.figures import cell


def write(verdicts: pd.DataFrame, path: Path | None = None) -> None:
    """Put the current verdicts and key tables into README.md (nothing happens without one)."""
    path = path or paths.root() / "README.md"
    if not path.exists():
        return
    text = replaced(path.read_text(), parts(verdicts))
    if text != path.read_text():
        with whole_file(path) as temporary:
            temporary.write_text(text)


def replaced(text: str, generated: dict[str, str]) -> str:
    """The text with each marked part replaced; a missing mark is left out silently by name."""
    for name, body in generated.items():
        pattern = rf"(<!-- generated: {re.escape(name)} -->\n).*?(<!-- end: {re.escape(name)} -->)"
        new = body.replace("\\", r"\\")
        text = re.sub(pattern, rf"\g<1>{new}\g<2>", text, flags=re.DOTALL)
    return text


def parts(verdicts: pd.DataFrame) -> dict[str, str]:
    """The generated parts by name."""
    return {"verdicts": _verdict_table(verdicts), **_tables()}


def _verdict_table(verdicts: pd.DataFrame) -> str:
    lines = ["| claim | paper | ours | 95 % interval | verdict |", "|---|---|---|---|---|"]
    for row in verdicts.to_dict("records"):
        ours = "–" if pd.isna(row["value"]) else f"{cell(row['value'])} {row['unit']}"
        low_high = "–" if pd.isna(row["low"]) else f"{cell(row['low'])} … {cell(row['high'])}"
        paper = f"{cell(row['paper_value'])} {row['unit']}"
        lines.append(f"| `{row['claim_id']}` | {paper} | {ours} | {low_high} | {row['verdict']} |")
    counts = verdicts["verdict"].value_counts()
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    return "\n".join(lines) + f"\n\n{summary}.\n"


def _tables() -> dict[str, str]:
    """Every table under results/tables, by its name."""
    return {file.stem: file.read_text().rstrip() + "\n" for file in paths.tables().glob("*.md")}
