"""The report: one folder of plain HTML with every verdict, figure and table; needs no network."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from ssjf.errors import InputError
from ssjf.experiments import paths
from ssjf.experiments.paths import made_with
from ssjf.report.claims import claims
from ssjf.report.figures import PROTOCOLS, cell
from ssjf.report.notebookfile import read

# verdict: css class, sign (a verdict is never told by its colour alone)
VERDICTS = {
    "reproduced": ("good", "✓"),
    "differs": ("bad", "✗"),
    "not attempted": ("open", "–"),
}
_MOST_ROWS = 200
_MOST_SVG_BYTES = 1_500_000
_OURS = '<meta name="generator" content="ssjf report">'


def build(verdicts: pd.DataFrame | None = None, out: str | Path | None = None) -> Path:
    """Write the report (by default results/report/) and return the path of its index.html.

    ``verdicts`` has one row per claim with the columns of results/claims.csv, which is read
    where None is given. Raises InputError where ``out`` holds something other than a report.
    """
    if verdicts is None and paths.claims_csv().exists():
        verdicts = pd.read_csv(paths.claims_csv())
    out = Path(out) if out is not None else paths.report()
    _check_replaceable(out)
    partial = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _write(verdicts, partial)
        _replace(out, partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out / "index.html"


def _write(verdicts: pd.DataFrame | None, folder: Path) -> None:
    folder.mkdir(parents=True)
    executed = {path.stem: _notebook(path, folder) for path in _sorted(paths.executed(), "ipynb")}
    figures = [_figure(path, folder, executed) for path in _sorted(paths.figures(), "json")]
    tables = [_table(path, folder, executed) for path in _sorted(paths.tables(), "json")]
    judged = [] if verdicts is None else [_claim(row) for row in verdicts.to_dict("records")]
    if verdicts is not None:
        verdicts.to_csv(folder / "claims.csv", index=False, lineterminator="\n")
    page = _template("report.html.j2").render(
        claims=judged,
        summary=_summary(judged),
        figures=sorted(figures, key=lambda entry: entry["order"]),
        tables=sorted(tables, key=lambda entry: entry["order"]),
        notebooks=sorted(executed.values(), key=lambda entry: entry["order"]),
        made_with=made_with(),
    )
    (folder / "index.html").write_text(page, encoding="utf-8")


def _claim(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A row of claims.csv as text (empty where missing), with its verdict's class and sign."""
    texts = {str(key): "" if pd.isna(value) else cell(value) for key, value in row.items()}
    told = _told(texts["claim_id"])
    more = {"what": told.get("what", ""), "above": told.get("relation") == "above"}
    verdict = texts.get("verdict") or "not attempted"
    style, sign = VERDICTS.get(verdict, ("open", "?"))
    return {**texts, **more, "verdict": verdict, "style": style, "sign": sign}


def _told(claim_id: str) -> dict[str, Any]:
    """What the paper's file says of a claim (nothing where there is no such file or claim)."""
    try:
        return claims().get(claim_id, {})
    except InputError:
        return {}


def _summary(claims: list[dict[str, Any]]) -> str:
    if not claims:
        return "No claim has been checked yet."
    counts = Counter(claim["verdict"] for claim in claims)
    listed = [*VERDICTS, *sorted(counts.keys() - VERDICTS.keys())]
    parts = ", ".join(f"{counts[verdict]} {verdict}" for verdict in listed)
    return f"{len(claims)} claims: {parts}."


def _figure(described: Path, folder: Path, executed: Mapping[str, dict]) -> dict[str, Any]:
    files = _copy(described, folder / "figures", ("pdf", "svg", "png", "json"))
    light = "svg" in files and described.with_suffix(".svg").stat().st_size < _MOST_SVG_BYTES
    shown = files["svg"] if light else files.get("png")
    return {**_entry(described, "figures", executed), "files": files, "image": shown}


def _table(described: Path, folder: Path, executed: Mapping[str, dict]) -> dict[str, Any]:
    files = _copy(described, folder / "tables", ("csv", "md", "json"))
    frame = pd.read_csv(described.with_suffix(".csv")) if "csv" in files else pd.DataFrame()
    rows = [[cell(value) for value in row] for row in frame.head(_MOST_ROWS).itertuples(False)]
    left_out = max(0, len(frame) - _MOST_ROWS)
    entry = _entry(described, "tables", executed)
    return {**entry, "files": files, "head": list(frame), "rows": rows, "left_out": left_out}


def _entry(described: Path, kind: str, executed: Mapping[str, dict]) -> dict[str, Any]:
    """What figures and tables have in common, and the notebook that promised them."""
    sidecar = json.loads(described.read_text(encoding="utf-8"))
    notes = sidecar.get("notes") or {}
    facts = {
        **sidecar.get("parameters", {}),
        **({"note": notes} if isinstance(notes, str) else notes),
    }
    maker = next((book for book in executed.values() if described.stem in book[kind]), None)
    return {
        "name": described.stem,
        "order": (maker["order"] if maker else "~", described.stem),
        "notebook": maker,
        "caption": sidecar.get("caption", ""),
        "protocol": sidecar.get("protocol", ""),
        "meaning": PROTOCOLS.get(sidecar.get("protocol", ""), ""),
        "runs": len(sidecar.get("runs", [])),
        "facts": {name: _text(value) for name, value in facts.items()},
    }


def _notebook(path: Path, folder: Path) -> dict[str, Any]:
    """Render an executed notebook into notebooks/NAME.html."""
    book = read(path)
    promise = book.metadata.get("ssjf", {})
    title = promise.get("title", path.stem)
    body = _body(book, title)
    page = _template("notebook.html.j2").render(title=title, body=body, css=_code_css())
    target = folder / "notebooks" / f"{path.stem}.html"
    target.parent.mkdir(exist_ok=True)
    target.write_text(page, encoding="utf-8")
    kinds = {kind: set(promise.get(kind, [])) for kind in ("figures", "tables")}
    return {"href": f"notebooks/{target.name}", "title": title, "order": path.stem, **kinds}


def _body(book: Any, title: str) -> str:
    """The cells as HTML. The full page of nbconvert would load scripts from elsewhere."""
    from nbconvert import HTMLExporter

    book.metadata.pop("widgets", None)  # live widgets need a server; their images stay
    for made in book.cells:
        made.metadata.setdefault("alt", title)  # what a screen reader says of its pictures
    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True)
    exporter.exclude_output_prompt = True
    return exporter.from_notebook_node(book)[0]


@cache
def _code_css() -> str:
    from pygments.formatters import HtmlFormatter

    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}"


def _template(name: str) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(name)


def _copy(described: Path, folder: Path, forms: tuple[str, ...]) -> dict[str, str]:
    """Copy the files of a figure or table; the link to each that exists, by form."""
    folder.mkdir(exist_ok=True)
    present = [form for form in forms if described.with_suffix(f".{form}").exists()]
    for form in present:
        shutil.copyfile(described.with_suffix(f".{form}"), folder / f"{described.stem}.{form}")
    return {form: f"{folder.name}/{described.stem}.{form}" for form in present}


def _text(value: Any) -> str:
    return ", ".join(map(cell, value)) if isinstance(value, list) else cell(value)


def _sorted(folder: Path, form: str) -> list[Path]:
    return [path for path in sorted(folder.glob(f"*.{form}")) if not path.name.startswith(".")]


def _check_replaceable(out: Path) -> None:
    index = out / "index.html"
    ours = index.is_file() and _OURS in index.read_text(encoding="utf-8", errors="replace")
    if out.exists() and not ours and (out.is_file() or any(out.iterdir())):
        raise InputError(f"{out} holds something other than a report; name another folder")


def _replace(out: Path, partial: Path) -> None:
    old = out.with_name(f".{out.name}.{os.getpid()}.old.tmp")
    if out.exists():
        os.replace(out, old)
    os.replace(partial, out)
    shutil.rmtree(old, ignore_errors=True)
