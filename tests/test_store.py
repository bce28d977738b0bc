"""Raw runs on disk: named by what was asked, whole or absent, and never changed."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from commands import changed, contents
from ssjf.errors import InputError
from ssjf.experiments import draws, paths, store
from ssjf.experiments.runner import execute
from ssjf.experiments.specs import spec_of

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = spec_of({
    "experiment": "boxes",
    "protocol": "published",
    "engine": "published",
    "detail": "requests",
    "mode": "continuous",
    "slots": 2,
    "workload": {
        "draw": "llm-boxes", "llm": "gpt-4", "rate": 1, "jobs": 20, "runs": 3, "seeds": [1, 2],
    },
    "policy": "ssjf",
    "predictor": "noise:0.5",
    "series": "ssjf",
}, "a test")  # fmt: skip
STEADY = spec_of({
    "experiment": "steady",
    "protocol": "steady-state",
    "engine": "simulator",
    "detail": "runs",
    "profile": "ssjf-paper",
    "slots": 2,
    "rho": 0.8,
    "warmup_fraction": 0.1,
    "workload": {"draw": "synthetic", "requests": 2_000, "seeds": [0, 1]},
    "policy": "ssjf",
    "predictor": "tau:0.6",
    "series": "ssjf",
}, "a test")  # fmt: skip


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("SSJF_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("SSJF_WORKLOADS", str(tmp_path / "workloads"))
    monkeypatch.delenv("SSJF_RAW", raising=False)
    return tmp_path / "results"


def saved(spec):
    return store.save(spec, execute(spec), 1.5)


def test_what_a_run_recorded_stands_beside_its_rows():
    saved(STEADY)
    runs = store.load(STEADY)
    assert store.recorded("steady", runs, "seconds").tolist() == [1.5] * len(runs)
    assert store.recorded("steady", runs, "cores").gt(0).all()


@pytest.mark.parametrize("spec", [PUBLISHED, STEADY], ids=["published", "steady"])
def test_the_same_specification_gives_the_same_bytes(spec, tmp_path, monkeypatch):
    first = (saved(spec) / "rows.parquet").read_bytes()
    monkeypatch.setenv("SSJF_RESULTS", str(tmp_path / "elsewhere"))
    again = saved(spec)
    assert tmp_path / "elsewhere" in again.parents
    assert (again / "rows.parquet").read_bytes() == first


@pytest.mark.parametrize("seed", [[0], [7]])
def test_a_seed_gives_the_same_rows_alone_and_among_others(seed):
    """Seeds are spawned per run: adding one changes none of the others."""
    alone = execute(changed(STEADY, workload=STEADY.workload.as_json() | {"seeds": seed}))
    more = execute(changed(STEADY, workload=STEADY.workload.as_json() | {"seeds": [3, *seed, 4]}))
    chosen = more[more["seed"].isin(seed)].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, chosen)


def test_the_name_is_the_hash_of_the_specification_in_any_order():
    assert store.digest(STEADY) == store.digest(dict(reversed(STEADY.as_json().items())))
    others = [changed(STEADY, **each) for each in ({"rho": 0.81}, {"policy": "fcfs"}, {"slots": 1})]
    assert len({store.digest(spec) for spec in [STEADY, *others]}) == 4
    assert len(store.digest(STEADY)) == 16


def test_a_run_is_a_folder_of_three_files(results):
    folder = saved(STEADY)
    assert folder == results / "raw" / "steady" / store.digest(STEADY)
    assert sorted(path.name for path in folder.iterdir()) == [
        "env.json", "rows.parquet", "spec.json",
    ]  # fmt: skip
    assert json.loads((folder / "spec.json").read_text()) == STEADY.as_json()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_where_a_run_was_made_stands_beside_it():
    env = json.loads((saved(STEADY) / "env.json").read_text())
    assert {"commit", "dirty", "python", "numpy", "numba", "platform", "processor"} <= set(env)
    assert env["seconds"] == 1.5 and env["cores"] == os.cpu_count()
    assert env["python"].split(".")[0] == "3" and len(env["rows_sha256"]) == 64


def test_what_was_saved_is_loaded_with_its_id():
    saved(STEADY)
    rows = store.load(STEADY)
    assert set(rows.pop("run_id")) == {store.digest(STEADY)}
    pd.testing.assert_frame_equal(rows, execute(STEADY))


def test_a_finished_run_is_left_as_it_is(results):
    saved(STEADY)
    before = contents(results)
    assert store.is_finished(STEADY)
    store.save(STEADY, execute(STEADY).assign(jct_mean=0.0), 99.0)
    assert contents(results) == before


def altered(name, change):
    path = saved(STEADY) / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError) as error:
        store.load(STEADY)
    assert str(path.parent) in str(error.value) and "run it again" in str(error.value)
    return str(error.value)


def test_an_edited_specification_is_refused():
    assert "was edited" in altered("spec.json", lambda text: text.replace(b"0.8", b"0.7"))


def test_truncated_rows_are_refused():
    assert "is truncated or was altered" in altered("rows.parquet", lambda data: data[:-1])


@pytest.mark.parametrize(
    ("name", "text"),
    [("spec.json", b"{"), ("spec.json", b"[]"), ("spec.json", b"\xff"), ("env.json", b"{}")],
)
def test_a_label_that_is_none_is_refused(name, text):
    altered(name, lambda _: text)


@pytest.mark.parametrize("name", ["spec.json", "env.json", "rows.parquet"])
def test_a_missing_file_is_refused(name):
    (saved(STEADY) / name).unlink()
    with pytest.raises(InputError, match=r"is not a whole run .*run it again"):
        store.load(STEADY)


def test_a_run_that_was_not_made_says_how_to_make_it():
    with pytest.raises(InputError, match="has not been made; run `ssjf run steady`"):
        store.load(STEADY)


RUNS = pd.DataFrame({"x": [1.0, 1.0], "seed": [1, 2], "run": [0, 0], "jct_mean": [2.0, 3.0]})
REQUESTS = RUNS.drop(columns="jct_mean").assign(
    arrived_at=0.0, output_tokens=3, scheduled_at=0.5, first_token_at=1.0, finished_at=[2.0, np.nan]
)
WRONG = [
    ("runs", RUNS, "x", None),
    ("runs", RUNS, "jct_mean", None),
    ("runs", RUNS, "jct_mean", -1.0),
    ("runs", RUNS, "jct_mean", np.nan),
    ("runs", RUNS, "jct_mean", np.inf),
    ("runs", RUNS, "seed", "one"),
    ("runs", RUNS, "seed", np.nan),
    ("runs", RUNS, "extra", "text"),
    ("requests", REQUESTS, "finished_at", None),
    ("requests", REQUESTS, "output_tokens", 0),
    ("requests", REQUESTS, "output_tokens", 2.5),
    ("requests", REQUESTS, "arrived_at", np.nan),
    ("requests", REQUESTS, "scheduled_at", -0.1),
]


@pytest.mark.parametrize(("detail", "rows", "column", "value"), WRONG)
def test_rows_that_are_not_as_promised_name_the_column(results, detail, rows, column, value):
    bad = rows.drop(columns=column) if value is None else rows.assign(**{column: value})
    with pytest.raises(InputError, match=f"^rows of .*: column {column}: |column {column} is miss"):
        store.save(changed(STEADY, detail=detail), bad, 1.0)
    assert not results.exists()


def test_good_rows_are_written_and_no_rows_are_not():
    for detail, rows in (("runs", RUNS), ("requests", REQUESTS)):
        assert store.save(changed(STEADY, detail=detail), rows, 1.0).is_dir()
    with pytest.raises(InputError, match="at least one is needed"):
        store.save(changed(STEADY, rho=0.1), RUNS.iloc[:0], 1.0)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SSJF_RESULTS", str(tmp_path / "file" / "results"))
    with pytest.raises(InputError, match=rf"^cannot write to {tmp_path}/file/results/raw/steady: "):
        store.save(STEADY, RUNS, 1.0)


FULL_DISK = """
import os, resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))
from ssjf.cli import main
main(["run", "llms", "--seeds", "1", "--jobs", "1"])
"""


def test_a_disk_without_room_is_one_sentence_and_nothing_half_written(results):
    """A limit on the size of a file fails a write as a full disk does."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    # The compiler's cache must not meet the limit: it is filled before.
    execute(changed(PUBLISHED, policy="fcfs"))
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK], capture_output=True, text=True, cwd=ROOT, timeout=600
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("ssjf: cannot write to ") and done.stderr.count("\n") == 1
    assert "File too large" in done.stderr
    assert contents(results) == {} and not [*results.rglob(".*")]


def test_what_a_killed_process_left_is_swept(results, tmp_path):
    left = results / "raw" / "steady" / ".tmp-abc"
    left.mkdir(parents=True)
    (left / "rows.parquet").write_text("half")
    draw = tmp_path / "workloads" / ".pool.parquet.1.tmp"
    draw.parent.mkdir()
    draw.write_text("half")
    finished = saved(STEADY)
    store.sweep_temporary(["steady"])
    assert not left.exists() and not draw.exists() and finished.is_dir()


def test_a_cut_draw_is_refused(tmp_path):
    options = {"draw": "length-pool", "requests": 10, "seed": 1}
    path = draws.draw_path(options)
    assert path.parent == paths.workloads() == tmp_path / "workloads"
    path.parent.mkdir()
    path.write_bytes(b"PAR1")
    with pytest.raises(InputError, match=f"the draw {path} is not a readable parquet file"):
        draws.draw(options)
