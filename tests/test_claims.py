"""The papers' claims: complete as data, and judged by rule."""

import math
from pathlib import Path

import pandas as pd
import pytest

from ssjf.analysis.bootstrap import Estimate
from ssjf.errors import InputError
from ssjf.experiments import paths
from ssjf.report import claims, figures, readme

ROOT = Path(__file__).resolve().parents[1]
REQUIRED = {
    "id", "what", "value", "unit", "provenance", "protocol", "command", "minutes", "paper",
}  # fmt: skip
HEADER = (
    "claim_id,paper,provenance,protocol,unit,paper_value,tolerance,value,low,high,"
    "bracket_low,bracket_high,verdict,ours,reason,command"
)
ORACLE = [f"ssjf.rate.oracle.{mode}" for mode in ("none", "dynamic", "continuous")]


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """The repository's claims and runs; what is written goes elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSJF_ROOT", str(ROOT))
        patch.setenv("SSJF_RAW", str(ROOT / "results" / "raw"))
        patch.setenv("SSJF_RESULTS", str(tmp_path_factory.mktemp("results")))
        yield ROOT


@pytest.fixture(scope="module")
def verdicts(repository):
    """All of them, once."""
    return claims.check()


def test_every_claim_is_complete(repository):
    text = "".join(file.read_text() for file in (ROOT / "papers").glob("*.toml"))
    found = claims.claims()
    assert len(found) == text.count("[[claim]]")  # no id is there twice
    for claim in found.values():
        assert set(claim) >= REQUIRED, claim["id"]
        assert claim["protocol"] in figures.PROTOCOLS
        assert {"tolerance", "relation"} & set(claim)
        assert claim["command"].startswith("ssjf ") and claim["minutes"] > 0
        assert {"measure", "ratio", "reason"} & set(claim), "not attempted needs a reason"


def test_every_verdict_is_one_of_four_and_has_its_reason(verdicts):
    assert set(verdicts["verdict"]) == {
        "reproduced", "differs", "not comparable", "not attempted",
    }  # fmt: skip
    assert ((verdicts["ours"] != "") == (verdicts["verdict"] == "not comparable")).all()
    reproduced = verdicts["verdict"] == "reproduced"
    assert (verdicts["reason"][~reproduced] != "").all()
    assert (verdicts["reason"][reproduced] == "").all()
    assert (verdicts["value"].isna() == (verdicts["verdict"] == "not attempted")).all()


def test_the_oracles_gains_are_reproduced(verdicts):
    found = verdicts.set_index("claim_id").loc[ORACLE]
    assert (found["verdict"] == "reproduced").all()
    assert found["value"].round(2).tolist() == [43.68, 58.23, 42.97]
    assert (found["low"] < found["paper_value"]).all()
    assert (found["high"] > found["paper_value"]).all()


def test_the_quality_of_the_unpublished_predictions_explains_the_paper_s_reductions(verdicts):
    """Between the published 5-class heads, a little worse, and the upper end of the bracket."""
    rows = verdicts.set_index("claim_id").loc[
        [f"ssjf.rate.jct.{mode}" for mode in ("none", "dynamic", "continuous")]
    ]
    assert (rows["value"] < rows["bracket_low"]).all()
    assert (rows["paper_value"] > rows["value"]).all()
    assert (rows["paper_value"] < rows["bracket_high"]).all()


def test_every_measured_claim_has_an_interval(verdicts):
    measured = [name for name, claim in claims.claims().items() if "measure" in claim]
    found = verdicts.set_index("claim_id").loc[measured]
    assert (found["low"] < found["high"]).all()


def test_some_are_checked_by_name(repository, verdicts):
    few = claims.check([ORACLE[1], "ssjf.overhead.share"])
    assert few["claim_id"].tolist() == [ORACLE[1], "ssjf.overhead.share"]
    assert few["verdict"].tolist() == ["reproduced", "differs"]
    with pytest.raises(InputError, match=r"unknown claim 'ssjf\.rate'; known: ") as error:
        claims.check(["ssjf.rate"])
    assert all(name in str(error.value) for name in verdicts["claim_id"])


def test_the_csv_has_the_columns_promised_and_is_stable(verdicts):
    claims.write(verdicts)
    first = (paths.results() / "claims.csv").read_bytes()
    assert first.decode().splitlines()[0] == HEADER
    claims.write(verdicts)
    assert (paths.results() / "claims.csv").read_bytes() == first
    read = pd.read_csv(paths.results() / "claims.csv", dtype={"paper": str}, keep_default_na=False)
    assert read["claim_id"].tolist() == verdicts["claim_id"].tolist()
    assert not [*paths.results().glob("*.tmp")]


def test_the_last_digits_of_another_machine_change_nothing(verdicts):
    claims.write(verdicts)
    first = (paths.results() / "claims.csv").read_bytes()
    numbers = ["value", "low", "high"]
    claims.write(verdicts.assign(**{name: verdicts[name] * (1 + 1e-12) for name in numbers}))
    assert (paths.results() / "claims.csv").read_bytes() == first


def judged(monkeypatch, claim, value=math.nan, low=math.nan, high=math.nan):
    """The verdict on a claim whose measure gives this."""
    monkeypatch.setattr(claims, "measure", lambda options, load: Estimate(value, low, high))
    fields = dict.fromkeys(REQUIRED, "") | {"id": "a.b", "value": 40.0, "tolerance": 1.0}
    return claims._judge(fields | {"measure": {}, "reason": "because"} | claim)


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(40.0, "reproduced"), (41.0, "reproduced"), (39.0, "reproduced"), (41.1, "differs"),
     (-40.0, "differs"), (math.nan, "not attempted")],
)  # fmt: skip
def test_a_value_is_reproduced_within_its_tolerance(monkeypatch, value, verdict):
    assert judged(monkeypatch, {}, value)["verdict"] == verdict


@pytest.mark.parametrize(
    ("low", "verdict"), [(40.1, "reproduced"), (40.0, "differs"), (math.nan, "differs")]
)
def test_above_means_surely_above(monkeypatch, low, verdict):
    assert judged(monkeypatch, {"relation": "above"}, 45.0, low, 50.0)["verdict"] == verdict


def test_what_differs_needs_a_reason(monkeypatch):
    with pytest.raises(InputError, match=r"claim a\.b, differs: its reason is missing"):
        judged(monkeypatch, {"reason": ""}, 50.0)


def test_an_interval_may_come_from_other_runs(monkeypatch):
    fresh = {"a": Estimate(40.0, 40.0, 40.0), "b": Estimate(42.0, 41.0, 43.0)}
    monkeypatch.setattr(claims, "measure", lambda options, load: fresh[options["of"]])
    fields = dict.fromkeys(REQUIRED, "") | {"id": "a.b", "value": 40.0, "tolerance": 1.0}
    found = claims._judge(fields | {"measure": {"of": "a"}, "interval": {"of": "b"}})
    assert (found["value"], found["low"], found["high"]) == (40.0, 41.0, 43.0)


def test_a_claim_without_a_measure_is_not_attempted():
    fields = dict.fromkeys(REQUIRED, "") | {"id": "a.b", "value": 40.0, "reason": "no model"}
    found = claims._judge(fields)
    assert (found["verdict"], found["reason"]) == ("not attempted", "no model")
    shares = claims._judge(fields | {"ratio": [1, 4], "value": 25, "tolerance": 0.1})
    assert (shares["verdict"], shares["value"]) == ("reproduced", 25)


README = """# Title

<!-- generated: verdicts -->
old
<!-- end: verdicts -->

Prose stays, and so does what no part is for:
<!-- generated: other -->
kept
<!-- end: other -->
"""


def test_the_generated_parts_of_the_readme_are_replaced_and_nothing_else(verdicts, tmp_path):
    path = tmp_path / "README.md"
    path.write_text(README)
    readme.write(verdicts, [path])
    first = path.read_text()
    assert "old" not in first and "Prose stays" in first and "\nkept\n" in first
    assert first.count("| `ssjf.") + first.count("| `alise.") == len(verdicts)
    assert "3 reproduced" in first or " reproduced" in first
    at = path.stat().st_mtime_ns
    readme.write(verdicts, [path])
    assert path.read_text() == first and path.stat().st_mtime_ns == at
    assert [file.name for file in tmp_path.iterdir()] == ["README.md"]


def test_a_part_may_hold_whatever_a_pattern_would_stumble_over():
    text = "<!-- generated: a+b -->\nx\n<!-- end: a+b -->\n"
    assert readme.replaced(text, {"a+b": r"\1 \g<0>" + "\n"}) == text.replace("x", r"\1 \g<0>")


def test_the_committed_verdicts_are_those_of_the_committed_runs(verdicts):
    committed = ROOT / "results" / "claims.csv"
    claims.write(verdicts)
    ours, theirs = (pd.read_csv(path) for path in (paths.results() / "claims.csv", committed))
    pd.testing.assert_frame_equal(ours, theirs, atol=2e-3)
