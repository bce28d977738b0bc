"""A figure made twice is the same bytes, and says beside it where it came from."""

import json

import matplotlib
import numpy as np
import pandas as pd
import pytest

from commands import notebook
from ssjf import report
from ssjf.errors import InputError
from ssjf.report import figures, style

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SAID = {"caption": "Mean JCT.", "protocol": "steady-state", "runs": ["b", "a", "b"]}


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("SSJF_ROOT", str(tmp_path))
    monkeypatch.delenv("SSJF_RESULTS", raising=False)
    yield tmp_path / "results"
    plt.close("all")


@pytest.fixture
def book(results):
    return notebook(results.parent)


def draw(slope=1.0):
    fig, ax = plt.subplots()
    for policy in ("fcfs", "sjf", "mine"):
        ax.plot([0, 1, 2], np.array([0.1, 1, 2]) * slope, **style.look(policy))
    ax.fill_between([0, 1], [0, 1], alpha=0.2)
    ax.set(xlabel="load", ylabel="JCT (s)", yscale="log")
    ax.legend()
    return fig


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_picture_is_the_same_bytes(book, results):
    book.save(draw(), "fig", **SAID)
    first = contents(results / "figures")
    assert set(first) == {"fig.pdf", "fig.svg", "fig.png", "fig.json"}
    for path in (results / "figures").iterdir():
        path.unlink()
    book.save(draw(), "fig", **SAID)
    assert contents(results / "figures") == first


def test_a_figure_that_was_shown_is_the_same_bytes_when_saved_again(book, results):
    shown = draw()
    shown.canvas.draw()
    book.save(shown, "fig", **SAID)
    first = contents(results / "figures")
    shown.canvas.draw()
    book.save(shown, "fig", **SAID)
    assert contents(results / "figures") == first


def test_no_dates_and_no_versions_in_the_pictures(book, results):
    book.save(draw(), "fig", **SAID)
    for data in (path.read_bytes() for path in figures.files("fig", "figures")[:3]):
        assert not any(word in data for word in (b"CreationDate", b"dc:date", b"Software"))
        assert b"Matplotlib v" not in data


def test_other_data_is_another_picture(book, results):
    book.save(draw(), "fig", **SAID)
    first = contents(results / "figures")
    book.save(draw(slope=2), "fig", **SAID)
    assert all(
        contents(results / "figures")[name] != first[name] for name in ("fig.svg", "fig.pdf")
    )


def test_another_commit_does_not_touch_an_unchanged_figure(book, results, monkeypatch):
    book.save(draw(), "fig", **SAID)
    first = contents(results / "figures")
    monkeypatch.setattr(figures, "made_with", lambda: {"commit": "another"})
    book.save(draw(), "fig", **SAID)
    assert contents(results / "figures") == first
    book.save(draw(), "fig", **{**SAID, "caption": "Another."})
    described = json.loads((results / "figures" / "fig.json").read_text())
    assert described["made_with"] == {"commit": "another"}


def test_saving_again_makes_the_files_fresh(book, results):
    book.save(draw(), "fig", **SAID)
    before = {path: path.stat().st_mtime_ns for path in figures.files("fig", "figures")}
    book.save(draw(), "fig", **SAID)
    assert all(path.stat().st_mtime_ns > then for path, then in before.items())


def test_the_sidecar_says_which_runs_and_parameters(book, results):
    runs = pd.DataFrame({"run_id": ["r2", "r1", "r2"], "seed": [1, 2, 3]})
    book = notebook(results.parent, loads=[0.5, 0.9], n=3)
    notes = {"queue depth": "12 [11, 13]", "seeds": np.int64(3)}
    book.save(draw(), "fig", caption="c", protocol="published", runs=runs, notes=notes)
    described = json.loads((results / "figures" / "fig.json").read_text())
    assert figures.stable(described) == {
        "figure": "fig",
        "caption": "c",
        "protocol": "published",
        "runs": ["r1", "r2"],
        "parameters": {"loads": [0.5, 0.9], "n": 3},
        "notes": {"queue depth": "12 [11, 13]", "seeds": 3},
    }
    assert {"commit", "dirty", "python", "numpy", "matplotlib", "ssjf"} == set(
        described["made_with"]
    )


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("fig", {"protocol": "steady"}, "unknown protocol 'steady'; known: both"),
        ("../fig", {}, "a figure's name is letters"),
        ("fig", {"runs": pd.DataFrame({"run": [1]})}, "no column 'run_id'; its columns: run"),
    ],
)
def test_what_cannot_be_saved(book, results, name, changed, message):
    with pytest.raises(InputError, match=message):
        book.save(draw(), name, **{**SAID, **changed})
    assert not results.exists()


def test_a_picture_that_cannot_be_drawn_leaves_nothing(book, results):
    fig = draw()
    fig.axes[0].set_title(r"$\nosuchthing$")
    with pytest.raises(ValueError):
        book.save(fig, "fig", **SAID)
    assert not results.exists()


def test_table(book, results):
    frame = pd.DataFrame({"policy": ["a|b", "c"], "jct": [1 / 3, 123456.0]}, index=["x", "y"])
    shown = book.table(frame.rename_axis("row"), "tab", **SAID)
    assert shown.index.name == "row"
    assert set(contents(results / "tables")) == {"tab.csv", "tab.md", "tab.json"}
    assert (results / "tables" / "tab.csv").read_text().splitlines() == [
        "row,policy,jct", "x,a|b,0.3333333333", "y,c,123456",
    ]  # fmt: skip
    assert (results / "tables" / "tab.md").read_text().splitlines() == [
        "| row | policy | jct |", "| --- | --- | --- |",
        "| x | a\\|b | 0.3333 |", "| y | c | 123500 |",
    ]  # fmt: skip


def test_cells_are_short():
    values = [1.0, 0.000123456, 2e9, float("nan"), None, 7, "x", np.float32(1.23456)]
    shown = ["1", "0.0001235", "2000000000", "–", "–", "7", "x", "1.235"]
    assert [figures.cell(value) for value in values] == shown


def test_every_policy_has_its_own_look():
    looks = [style.look(policy) for policy in style._LOOKS]
    for key in ("color", "label"):
        assert len({look[key] for look in looks}) == len(looks)
    assert style.look("mine") == style.look("mine")
    assert style.look("mine")["label"] == "mine"
    assert style.look("mine")["color"] not in {style.look(known)["color"] for known in style._LOOKS}


def test_every_proxy_has_its_own_look():
    looks = [style.look(f"proxy:{name}") for name in style._PROXIES]
    for key in ("color", "marker", "label"):
        assert len({look[key] for look in looks}) == len(looks)
    assert style.look("light") == style.look("proxy:light")
    assert style.look("head:l1")["label"] == "l1"


def test_other_parameters_than_the_defaults_are_drawn_elsewhere(book, results, capsys):
    notebook(results.parent, rates=[1, 3])
    report.Notebook("book", rates=[1, 3]).save(draw(), "fig", **SAID)
    cited = contents(results / "figures")
    report.Notebook("book", rates=[1]).save(draw(slope=2), "fig", **SAID)
    assert contents(results / "figures") == cited
    assert "results/scratch/book/rates=1" in capsys.readouterr().out.replace("[", "").replace(
        "]", ""
    )
    with pytest.raises(
        InputError, match=r"unknown parameter of 00_book.ipynb 'rate'; known: rates"
    ):
        report.Notebook("book", rate=[1])
