"""The report: a folder of plain HTML, findings first, that needs no server and no network."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ssjf.errors import InputError
from ssjf.experiments import paths
from ssjf.experiments.paths import made_with
from ssjf.files import whole_folder
from ssjf.report.claims import claims
from ssjf.report.figures import PROTOCOLS, cell
from ssjf.report.notebookfile import read
from ssjf.report.site import Site, launchers, markdown_html, notebook_html, repository

# verdict: css class, sign (colour alone never carries the verdict)
VERDICTS = {
    "reproduced": ("good", "✓"),
    "differs": ("bad", "✗"),
    "not comparable": ("open", "≠"),
    "not attempted": ("open", "–"),
}
SECTIONS = {  # by the first digit of a notebook's name
    "0": "A queue to play with",
    "1": "SSJF's figures and tables",
    "2": "Quirks and steady state",
    "3": "Proxies",
    "4": "vLLM",
    "5": "ALISE",
    "6": "Policies compared, clusters",
    "more": "More",
}
_MOST_ROWS = 200
_MOST_SVG_BYTES = 1_000_000
_SMALL = (480, 480)
_OURS = '<meta name="generator" content="ssjf report">'


def build(
    verdicts: pd.DataFrame | None = None,
    out: str | Path | None = None,
    address: str | None = None,
) -> Path:
    """Write the report (by default results/report/) and return the path of its index.html.

    ``verdicts`` has one row per claim with the columns of results/claims.csv, which is read by
    default; ``address`` is the GitHub repository that notebooks are launched from, by default
    that of CITATION.cff. Raises InputError if ``out`` holds something other than a report, the
    address is malformed, or a table lacks a row that a finding needs.
    """
    if verdicts is None and (paths.results() / "claims.csv").exists():
        verdicts = pd.read_csv(paths.results() / "claims.csv", dtype={"paper": str})
    out = Path(out) if out is not None else paths.results() / "report"
    _check_replaceable(out)
    with whole_folder(out) as folder:
        _write(verdicts, folder, repository() if address is None else address)
        if out.exists():
            shutil.rmtree(out)
    return out / "index.html"


def _write(verdicts: pd.DataFrame | None, folder: Path, address: str) -> None:
    books = _books()
    made = paths.results()
    figures = {
        path.stem: _figure(path, folder, books) for path in _sorted(made / "figures", "json")
    }
    tables = {path.stem: _table(path, folder, books) for path in _sorted(made / "tables", "json")}
    sections = _sections(books)
    docs = [_doc(path) for path in _sorted(paths.root() / "docs", "md")]
    site = Site(folder, sections=sections, docs=docs, made_with=made_with())
    site.pages |= {page["href"] for page in [*sections, *docs, *books]}
    rows = []
    if verdicts is not None:
        verdicts.to_csv(folder / "claims.csv", index=False, lineterminator="\n")
        rows = [_claim(row) for row in verdicts.to_dict("records")]
    for claim in rows:
        text = f"{claim['what']} {claim['verdict']} {claim.get('reason', '')}"
        site.find("claim", claim["claim_id"], text, f"index.html#claim-{claim['claim_id']}")
    for item in (*figures.values(), *tables.values()):
        site.find(item["kind"], item["name"], item["caption"], item["href"])
    given = {"figures": figures, "tables": tables, "claims": rows, "row": _row}
    site.page("index.html", "index.html.j2", verdicts=list(VERDICTS), **given)
    for section in sections:
        site.page(section["href"], "section.html.j2", section=section)
    for book in books:
        if book["href"]:
            _notebook(site, book, address)
    for doc in docs:
        site.find("page", doc["title"], doc["text"], doc["href"])
        body = site.linked(markdown_html(doc["text"]), "docs")
        site.page(doc["href"], "text.html.j2", title=doc["title"], body=body)
    site.finish()


def _books() -> list[dict[str, Any]]:
    """The notebooks in order, executed or not, and last a collector of undeclared figures."""
    latest = {path.stem: path for path in _sorted(paths.notebooks(), "ipynb")}
    latest |= {path.stem: path for path in _sorted(paths.results() / "executed", "ipynb")}
    return [*(_book(path) for _, path in sorted(latest.items())), _book(None)]


def _book(path: Path | None) -> dict[str, Any]:
    name, content = (path.stem, read(path)) if path else ("", None)
    promised = content.metadata.get("ssjf", {}) if content else {"title": "Other figures"}
    executed = path is not None and path.parent == paths.results() / "executed"
    return {
        "name": name,
        "title": promised.get("title", name),
        "href": f"notebooks/{name}.html" if executed else "",
        "promised": promised,
        "content": content,
        "figures": [],
        "tables": [],
    }


def _sections(books: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Group the notebooks by section, without empty ones."""
    full = [book for book in books if book["href"] or book["figures"] or book["tables"]]
    return [
        {"href": href, "title": title, "books": inside}
        for href, title in {_section(digit): title for digit, title in SECTIONS.items()}.items()
        if (inside := [book for book in full if _section(book["name"]) == href])
    ]


def _section(book: str) -> str:
    """The page that shows a notebook's figures and tables."""
    return f"section-{book[:1] if book[:1] in SECTIONS else 'more'}.html"


def _notebook(site: Site, book: dict[str, Any], address: str) -> None:
    """Write an executed notebook as a page, and as a file beside it."""
    import nbformat

    content, name = book["content"], book["name"]
    words = " ".join(made.source for made in content.cells if made.cell_type == "markdown")
    site.find("notebook", book["title"], words, book["href"])
    content.metadata.pop("papermill", None)  # it names folders of this machine
    (site.folder / "notebooks").mkdir(exist_ok=True)
    nbformat.write(content, site.folder / "notebooks" / f"{name}.ipynb")
    body = site.linked(notebook_html(content, book["title"]), "notebooks")
    given = {"book": book, "launchers": launchers(address, name)}
    site.page(book["href"], "text.html.j2", title=book["title"], body=body, **given)


def _doc(path: Path) -> dict[str, str]:
    text = path.read_text(encoding="utf-8")
    title = text.partition("\n")[0].lstrip("# ") or path.stem
    return {"name": path.stem, "title": title, "text": text, "href": f"docs/{path.stem}.html"}


def _claim(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Format a row of claims.csv as text, with the class and sign of its verdict."""
    texts = {str(key): "" if pd.isna(value) else cell(value) for key, value in row.items()}
    try:
        in_paper = claims().get(texts["claim_id"], {})
    except InputError:  # no files of papers here
        in_paper = {}
    more = {"what": in_paper.get("what", ""), "above": in_paper.get("relation") == "above"}
    verdict = texts.get("verdict") or "not attempted"
    style, sign = VERDICTS.get(verdict, ("open", "?"))
    return {**texts, **more, "verdict": verdict, "style": style, "sign": sign}


def _figure(described: Path, folder: Path, books: list[dict[str, Any]]) -> dict[str, Any]:
    files = _copy(described, folder / "figures", ("pdf", "svg", "png", "json"))
    light = "svg" in files and described.with_suffix(".svg").stat().st_size < _MOST_SVG_BYTES
    shown = files["svg"] if light else files.get("png", "")
    small = _thumbnail(described.with_suffix(".png"), folder) if "png" in files else shown
    return _entry(described, "figure", books, files=files, image=shown, small=small)


def _thumbnail(picture: Path, folder: Path) -> str:
    from PIL import Image

    image = Image.open(picture).convert("RGB")
    image.thumbnail(_SMALL)
    href = f"figures/{picture.stem}.small.png"
    image.quantize(64).save(folder / href)
    return href


def _table(described: Path, folder: Path, books: list[dict[str, Any]]) -> dict[str, Any]:
    files = _copy(described, folder / "tables", ("csv", "md", "json"))
    frame = pd.read_csv(described.with_suffix(".csv")) if "csv" in files else pd.DataFrame()
    rows = [[cell(value) for value in row] for row in frame.head(_MOST_ROWS).itertuples(False)]
    left_out = max(0, len(frame) - _MOST_ROWS)
    records = frame.to_dict("records")
    more = {"head": list(frame), "rows": rows, "records": records, "left_out": left_out}
    return _entry(described, "table", books, files=files, **more)


def _entry(described: Path, kind: str, books: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Describe a figure or table and add it to the notebook that declares it."""
    sidecar = json.loads(described.read_text(encoding="utf-8"))
    name, notes = described.stem, sidecar.get("notes") or {}
    facts = sidecar.get("parameters", {}) | ({"note": notes} if isinstance(notes, str) else notes)
    makers = [book for book in books if name in book["promised"].get(f"{kind}s", [])]
    maker = (makers or books)[0 if makers else -1]
    entry = {
        "name": name,
        "kind": kind,
        "href": f"{_section(maker['name'])}#{kind}-{name}",
        "notebook": maker["href"],
        "caption": sidecar.get("caption", ""),
        "protocol": sidecar.get("protocol", ""),
        "meaning": PROTOCOLS.get(sidecar.get("protocol", ""), ""),
        "runs": len(sidecar.get("runs", [])),
        "facts": facts,
        **more,
    }
    maker[f"{kind}s"].append(entry)
    return entry


def _row(table: Mapping[str, Any], **where: Any) -> dict[str, Any]:
    """The first row of a table with these values, for the text of a finding."""
    for row in table["records"]:
        if where.items() <= row.items():
            return row
    wanted = ", ".join(f"{column} {value}" for column, value in where.items())
    raise InputError(f"the table {table['name']} has no row with {wanted}; a finding needs it")


def _copy(described: Path, folder: Path, forms: tuple[str, ...]) -> dict[str, str]:
    """Copy the files of a figure or table; return the link to each by form."""
    folder.mkdir(exist_ok=True)
    present = [form for form in forms if described.with_suffix(f".{form}").exists()]
    for form in present:
        shutil.copyfile(described.with_suffix(f".{form}"), folder / f"{described.stem}.{form}")
    return {form: f"{folder.name}/{described.stem}.{form}" for form in present}


def _sorted(folder: Path, form: str) -> list[Path]:
    return [path for path in sorted(folder.glob(f"*.{form}")) if not path.name.startswith(".")]


def _check_replaceable(out: Path) -> None:
    index = out / "index.html"
    ours = index.is_file() and _OURS in index.read_text(encoding="utf-8", errors="replace")
    if out.exists() and not ours and (out.is_file() or any(out.iterdir())):
        raise InputError(f"{out} holds something other than a report; name another folder")
