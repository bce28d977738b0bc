"""The report opens from a folder, offline, on a phone, and says every verdict in words."""

import json
import re
import shutil
from html.parser import HTMLParser

import matplotlib
import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from browser import (
    REPOSITORY,
    broken_images,
    chromium,
    console_errors,
    needs_browser,
    requested,
    see,
)
from commands import notebook, refused, ssjf
from ssjf.errors import InputError
from ssjf.report import page as report
from ssjf.report import style
from ssjf.report.figures import cell

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
        "ssjf steady-state – 1 –",
        "39.6 % 5 38.12 [36.9, 39.2] ✓ reproduced",
        "known from: Fig. 6 <b>",
        "ssjf-tail the tail grows – with load steady-state protocol",
        "30.5 % 5 12 [10, 14] ✗ differs",
        "ssjf-gpu needs a GPU measured protocol; known from: Sec. 5",
    ):
        assert words in page.text, words
    assert [image["alt"] for image in page.images] == ['fig-load: JCT "by" load & policy.']
    assert {"notebooks/fig-load.html", "section-more.html", "claims.csv"} <= set(page.links)
    section = _Page(index.parent / "section-more.html")
    for words in (
        "fig-load steady-state",
        "queue depth 12.3 [11, 13]",
        "loads 0.5, 0.9",
        "From 2 runs.",
        "Other figures",
        "A wide table.",
    ):
        assert words in section.text, words
    assert {"figures/fig-load.pdf", "figures/fig-load.svg"} <= set(section.links)
    assert "tables/tab-wide.csv" in section.links
    inside = _Page(index.parent / "notebooks" / "fig-load.html")
    assert [image["alt"] for image in inside.images] == ["Load"]
    assert {"fig-load.ipynb", "../figures/fig-load.svg"} <= set(inside.links)
    assert "jupyter lab notebooks/fig-load.ipynb" in inside.text


def test_documents_lead_to_pages_of_the_report_or_nowhere(filled):
    docs = filled.parent / "docs"
    docs.mkdir()
    (docs / "guide.md").write_text(
        "# A guide\n\n[one](other.md#b), [two](../notebooks/fig-load.ipynb), [lost](../x.py)\n\n"
        "![load](../results/figures/fig-load.svg)\n"
    )
    (docs / "other.md").write_text("Without a heading\n\n## B\n")
    folder = report.build(VERDICTS).parent
    guide = _Page(folder / "docs" / "guide.html")
    assert {"other.html#b", "../notebooks/fig-load.html", "../index.html"} <= set(guide.links)
    assert "lost" in guide.text and "../x.py" not in guide.links
    assert [image["src"] for image in guide.images] == ["../figures/fig-load.svg"]
    assert "docs/guide.html" in _Page(folder / "index.html").links


def test_notebooks_are_launched_from_the_repository_that_is_known(filled):
    def launched(**address):
        page = _Page(report.build(VERDICTS, **address).parent / "notebooks" / "fig-load.html")
        return [link for link in page.links if link.startswith("https:")]

    assert launched() == []
    citation = filled.parent / "CITATION.cff"
    citation.write_text('title: x\nrepository-code: "https://github.com/a/b"\n')
    binder, colab = launched()
    assert binder.endswith("/gh/a/b/HEAD?urlpath=lab/tree/notebooks/fig-load.ipynb")
    assert colab.endswith("/github/a/b/blob/main/notebooks/fig-load.ipynb")
    assert "/github/c/d/" in launched(address="https://github.com/c/d.git")[1]
    told = refused("report", "--repository", "https://example.org/a/b")  # before notebooks run
    assert "not the address of a repository on GitHub" in told


def test_the_pages_alone_are_written_anew(filled):
    VERDICTS.to_csv(filled / "claims.csv", index=False)
    result = ssjf("report", "--pages-only", "--repository", "https://github.com/a/b")
    assert result.output.strip() == f"report: {filled / 'report' / 'index.html'}"
    assert "github/a/b" in (filled / "report" / "notebooks" / "fig-load.html").read_text()


@pytest.fixture
def committed(results, monkeypatch):
    """The repository's verdicts; its figures and tables are in ``results``, its documents too."""
    monkeypatch.setenv("SSJF_ROOT", str(REPOSITORY))
    for kind in ("figures", "tables"):
        shutil.copytree(REPOSITORY / "results" / kind, results / kind)
    return pd.read_csv(REPOSITORY / "results" / "claims.csv", dtype={"paper": str})


def test_findings_say_what_the_tables_say(committed, results):
    shown = _Page(report.build(committed)).text
    first, second, third = (
        _table(results, name) for name in ("steady_map", "tail", "proxies_choice")
    )
    oracle = committed[committed["claim_id"].str.startswith("ssjf.rate.oracle.")]
    assert len(oracle) == 3 and set(oracle["verdict"]) == {"reproduced"}
    for row in oracle.itertuples():
        interval = f"[{cell(row.low)}, {cell(row.high)}]"
        assert f"{cell(row.value)} % {interval} with" in shown
        assert f"(published: {cell(row.paper_value)} %)" in shown
    for slots in (1, 8):
        gain = first.loc[slots, 0.9, "SJF (oracle)"]
        assert f"{cell(gain['JCT reduction (%)'])} % [{cell(gain['low (%)'])}, " in shown
    fcfs, ssjf = (second.loc[1, 0.9, policy] for policy in ("FCFS", "SSJF (5-class)"))
    assert fcfs["mean JCT (s)"] > ssjf["mean JCT (s)"], "the title of the finding"
    assert fcfs["p99 JCT (s), high"] < ssjf["p99 JCT (s), low"], "the title of the finding"
    for row in (fcfs, ssjf):
        low, high = row["p99 JCT (s), low"], row["p99 JCT (s), high"]
        assert f"{cell(row['p99 JCT (s)'])} s [{cell(low)}, {cell(high)}]" in shown
    board = pd.read_csv(results / "tables" / "arena_board.csv").set_index("policy")
    for policy, words in (
        ("SSJF", "of FCFS's in {},"),
        ("contract tuner (ours)", "ssjf serve in {},"),
    ):
        assert words.format(board.loc[policy, "and p99.9 within 10 %"]) in shown
    assert board.loc["contract tuner (ours)", "and p99.9 within 10 %"] == board["cells"].iloc[0]
    shares = third["share of the oracle's gain (%)"].str.split(n=1, expand=True)
    for proxy in ("light", shares[0].astype(float).idxmax()):
        value, interval = shares.loc[proxy]
        assert f"“{proxy}” keeps {value} % {interval} at" in shown


def test_a_table_without_what_a_finding_is_about_is_named(committed, results):
    tail = pd.read_csv(results / "tables" / "tail.csv")
    tail[tail["policy"] != "FCFS"].to_csv(results / "tables" / "tail.csv", index=False)
    with pytest.raises(InputError, match=r"table tail has no row with slots 1, ρ 0.9, policy FCFS"):
        report.build(committed)


def test_no_page_is_heavy(committed):
    folder = report.build(committed).parent
    for path in folder.rglob("*.html"):
        targets = [target for target in _Page(path).loads if not target.startswith("data:")]
        loaded = {path, *((path.parent / target).resolve() for target in targets)}
        assert sum(file.stat().st_size for file in loaded) < 3_000_000, path.name


def _table(results, name):
    frame = pd.read_csv(results / "tables" / f"{name}.csv")
    return frame.set_index(list(frame.columns[: 1 if name == "proxies_choice" else 3]))


def test_all_links_lead_somewhere_inside_the_folder(filled):
    folder = report.build(VERDICTS).parent
    for path in folder.rglob("*.html"):
        page = _Page(path)
        inside = [
            target for target in page.loads + page.links if not target.startswith(("data:", "#"))
        ]
        assert not [target for target in inside if re.match(r"(\w+:|//|/)", target)]
        for target in inside:
            file, _, anchor = target.partition("#")
            assert (path.parent / file).is_file(), target
            assert not anchor or f'id="{anchor}"' in (path.parent / file).read_text(), target


def test_an_empty_results_folder_is_a_report_too(results):
    text = _Page(report.build()).text
    assert "No claim has been checked yet." in text


def test_every_verdict_has_its_sign(results):
    given = {"reproduced": "✓", "not comparable": "≠", "made up": "?"}
    text = _Page(report.build(VERDICTS.assign(verdict=list(given)))).text
    assert "3 claims: 1 reproduced, 1 not comparable, 1 made up." in text
    assert all(f"{sign} {verdict}" in text for verdict, sign in given.items())


def test_verdicts_are_read_from_the_results(filled):
    named = {"claim_id": ["a.x", "a.y", "b"], "paper": ["2404.08500", "2404.08500", "2405.1"]}
    VERDICTS.assign(**named).to_csv(filled / "claims.csv", index=False)
    text = _Page(report.build()).text
    assert "3 claims: 1 reproduced" in text
    assert "A 2404.08500 published 1 – –" in text and "2405.1 measured – – 1" in text


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
    assert not [path for path in filled.iterdir() if path.name.startswith(".")]


@needs_browser
@pytest.mark.parametrize("width", [None, 390])
def test_in_a_browser(committed, results, width):
    (results / "executed").mkdir()
    nbformat.write(_book(), results / "executed" / "10_lengths.ipynb")
    folder = report.build(committed).parent
    pages = ["index", "section-1", "section-4", "notebooks/10_lengths", "docs/structure"]
    with chromium(width) as driver:
        for page in pages:
            driver.get((folder / f"{page}.html").as_uri())
            assert see(driver, "img") or page.startswith("docs/")
            assert broken_images(driver) == []
            assert console_errors(driver) == []
            assert [url for url in requested(driver) if not url.startswith(HERE)] == []
            room = driver.execute_script("return document.documentElement.clientWidth")
            wide = driver.execute_script("return document.documentElement.scrollWidth")
            assert wide <= room, page
            assert width is None or room == width


@needs_browser
def test_the_search_and_the_filter(filled):
    folder = report.build(VERDICTS).parent
    with chromium() as driver:
        driver.get((folder / "notebooks" / "fig-load.html").as_uri())
        assert not see(driver, "#results")[0].is_displayed()
        see(driver, "#search")[0].send_keys("POLICY jct")
        assert [link.text for link in see(driver, "#results a")] == ["fig-load"]
        see(driver, "#results a")[0].click()
        assert driver.current_url.endswith("/section-more.html#figure-fig-load")
        see(driver, "#search")[0].send_keys("nowhere")
        assert see(driver, "#results")[0].text == "Nothing found."
        driver.get((folder / "index.html").as_uri())
        assert _claims_shown(driver) == ["ssjf-jct-gain", "ssjf-tail", "ssjf-gpu"]
        see(driver, "#filters input")[0].send_keys("tail GROWS")
        assert _claims_shown(driver) == ["ssjf-tail"]
        assert see(driver, "#shown")[0].text == "1 of 3"
        see(driver, "#filters select[name=verdict] option")[1].click()
        assert _claims_shown(driver) == []
        see(driver, "#filters input")[0].clear()
        assert _claims_shown(driver) == ["ssjf-jct-gain"]


def _claims_shown(driver):
    rows = see(driver, "#verdicts tbody tr")
    return [row.get_attribute("id").removeprefix("claim-") for row in rows if row.is_displayed()]


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
