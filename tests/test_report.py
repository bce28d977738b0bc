"""The report opens from a folder, offline, on a phone, and says every verdict in words."""

import json
import re
from html.parser import HTMLParser

import matplotlib
import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from browser import broken_images, chromium, console_errors, needs_browser, requested, see
from commands import notebook
from ssjf.errors import InputError
from ssjf.report import page as report
from ssjf.report import style

matplotlib.use("Agg")
import matplotlib.pyplot as plt

VERDICTS = pd.DataFrame(
    {
        "claim_id": ["ssjf-jct-gain", "ssjf-tail", "ssjf-gpu"],
        "paper": "ssjf",
        "provenance": ["Fig. 5", "Fig. 6 <b>", "Sec. 5"],
        "protocol": ["published", "steady-state", "measured"],
        "unit": "%",
        "paper_value": [39.6, 30.5, np.nan],
        "tolerance": [5.0, 5.0, np.nan],
        "value": [38.123456, 12.0, np.nan],
        "low": [36.9, 10.0, np.nan],
        "high": [39.2, 14.0, np.nan],
        "verdict": ["reproduced", "differs", "not attempted"],
        "reason": ["", "the tail grows – with load", "needs a GPU"],
        "command": "ssjf check",
    }
)
ONE_PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
HERE = ("file:", "data:", "chrome:")  # the last is the browser's own first tab


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("SSJF_ROOT", str(tmp_path))
    monkeypatch.setenv("SSJF_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


@pytest.fixture
def filled(results):
    """A figure, a wide table and an executed notebook that promised the figure."""
    book = notebook(results.parent, loads=[0.5, 0.9])
    fig, ax = plt.subplots()
    ax.plot([0.1, 0.9], [1, 5], **style.look("ssjf"))
    said = {"protocol": "steady-state", "runs": ["a", "b"]}
    notes = {"queue depth": "12.3 [11, 13]"}
    book.save(fig, "fig-load", caption='JCT "by" load & policy.', notes=notes, **said)
    plt.close(fig)
    wide = pd.DataFrame({f"a long column {i}": np.arange(3) / 7 for i in range(12)})
    book.table(wide, "tab-wide", caption="A wide table.", **said)
    executed = results / "executed"
    executed.mkdir()
    nbformat.write(_book(), executed / "fig-load.ipynb")
    return results


def _book():
    picture = new_output("display_data", {"image/png": ONE_PIXEL, "text/plain": "<Figure>"})
    shown = new_output("execute_result", {"text/plain": "1 " * 400}, execution_count=2)
    cells = [
        new_markdown_cell("# Load\nA claim."),
        new_code_cell("load = 0.9", execution_count=1, metadata={"tags": ["parameters"]}),
        new_code_cell("draw(" + "x, " * 80 + ")", execution_count=2, outputs=[picture, shown]),
    ]
    book = new_notebook(cells=cells)
    book.metadata["ssjf"] = {"title": "Load", "figures": ["fig-load"], "tables": []}
    book.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    return book


class _Page(HTMLParser):
    """What a page loads, where it links, and its words."""

    def __init__(self, path):
        super().__init__()
        self.loads, self.links, self.images, self.words = [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.loads += [given["src"]] if "src" in given else []
        self.links += [given["href"]] if tag == "a" and "href" in given else []
        self.loads += [given["href"]] if tag == "link" else []
        self.images += [given] if tag == "img" else []

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def test_every_part_of_the_page(filled):
    index = report.build(VERDICTS)
    assert index == filled / "report" / "index.html"
    page = _Page(index)
    for words in (
        "3 claims: 1 reproduced, 1 differs, 1 not attempted.",
        "39.6 % 5 38.12 [36.9, 39.2] ✓ reproduced",
        "known from: Fig. 6 <b>",
        "ssjf-tail the tail grows – with load steady-state protocol",
        "30.5 % 5 12 [10, 14] ✗ differs",
        "ssjf-gpu needs a GPU measured protocol; known from: Sec. 5",
        "fig-load steady-state",
        "queue depth 12.3 [11, 13]",
        "loads 0.5, 0.9",
        "From 2 runs.",
        "A wide table.",
    ):
        assert words in page.text, words
    assert [image["alt"] for image in page.images] == ['fig-load: JCT "by" load & policy.']
    inside = _Page(index.parent / "notebooks" / "fig-load.html")
    assert [image["alt"] for image in inside.images] == ["Load"]
    assert "notebooks/fig-load.html" in page.links
    assert {"figures/fig-load.pdf", "tables/tab-wide.csv", "claims.csv"} <= set(page.links)


def test_all_links_lead_somewhere_inside_the_folder(filled):
    folder = report.build(VERDICTS).parent
    for path in folder.rglob("*.html"):
        page = _Page(path)
        inside = [
            target for target in page.loads + page.links if not target.startswith(("data:", "#"))
        ]
        assert not [target for target in inside if re.match(r"(\w+:|//|/)", target)]
        assert all((path.parent / target).is_file() for target in inside)


def test_an_empty_results_folder_is_a_report_too(results):
    text = _Page(report.build()).text
    assert "No claim has been checked yet." in text


def test_verdicts_are_read_from_the_results(filled):
    VERDICTS.to_csv(filled / "claims.csv", index=False)
    assert "3 claims: 1 reproduced" in _Page(report.build()).text


def test_a_report_replaces_a_report_and_nothing_else(filled, tmp_path):
    first = report.build(VERDICTS)
    (first.parent / "old.html").write_text("stale")
    report.build(VERDICTS)
    assert not (first.parent / "old.html").exists()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "index.html").write_text("mine")
    with pytest.raises(InputError, match="holds something other than a report"):
        report.build(VERDICTS, out=tmp_path / "thesis")
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["index.html"]


def test_a_report_that_fails_leaves_the_old_one(filled):
    index = report.build(VERDICTS)
    (filled / "figures" / "broken.json").write_text("{")
    with pytest.raises(json.JSONDecodeError):
        report.build(VERDICTS)
    assert index.is_file()
    assert not [path for path in filled.iterdir() if path.name.startswith(".report")]


@needs_browser
@pytest.mark.parametrize("width", [None, 390])
def test_in_a_browser(filled, width):
    index = report.build(VERDICTS)
    with chromium(width) as driver:
        for page in (index, index.parent / "notebooks" / "fig-load.html"):
            driver.get(page.as_uri())
            assert see(driver, "img")
            assert broken_images(driver) == []
            assert console_errors(driver) == []
            assert [url for url in requested(driver) if not url.startswith(HERE)] == []
            room = driver.execute_script("return document.documentElement.clientWidth")
            assert driver.execute_script("return document.documentElement.scrollWidth") <= room
            assert width is None or room == width


@needs_browser
def test_dark_and_light(filled):
    index = report.build(VERDICTS)
    with chromium() as driver:
        seen = {_background(driver, index, scheme) for scheme in ("light", "dark")}
    assert len(seen) == 2


def _background(driver, page, scheme):
    wanted = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted})
    driver.get(page.as_uri())
    return driver.execute_script("return getComputedStyle(document.body).backgroundColor")
