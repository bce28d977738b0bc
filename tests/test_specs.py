"""Specifications: today's runs keep their names, and what is not allowed fails when it is read."""

import json

import pytest

from commands import refused
from ssjf.errors import InputError
from ssjf.experiments import grid, paths, runner, store
from ssjf.experiments.specs import KINDS, spec_of

EXPERIMENT = """
[mine]
title = "A trial"
protocol = "steady-state"
engine = "simulator"
detail = "runs"
profile = "ssjf-paper"
rho = 0.8

[mine.workload]
draw = "synthetic"
requests = 100
seeds = { first = 0, count = 2 }

[mine.grid]
slots = [1, 2]

[[mine.series]]
series = "fcfs"
policy = "fcfs"
"""


def stored():
    """The texts of the specifications that lie beside the committed runs."""
    return [file for file in paths.raw().glob("*/*/spec.json")]


def test_every_committed_run_is_read_and_written_byte_for_byte():
    """A run is named by the hash of its text: a typed specification must not change a byte."""
    files = stored()
    assert len(files) > 1000
    for file in files:
        raw = json.loads(file.read_text())
        spec = spec_of(raw, str(file))
        assert store.canonical(spec) == store.canonical(raw)
        assert store.digest(spec) == file.parent.name


def test_every_committed_run_is_one_that_an_experiment_asks_for():
    specs = [spec for each in grid.experiments().values() for spec in each.specs()]
    for name in ("cpu-mid", "cpu-tiny-float32", "cpu-mid-float32"):
        specs += grid.experiment("vllm-calibration").specs(deployment=name)
    asked = {store.digest(spec) for spec in specs}
    assert {file.parent.name for file in stored()} <= asked


def test_every_engine_has_its_class_and_is_executed():
    assert KINDS.keys() == runner.ROWS.keys()


def test_an_experiment_expands_to_every_series_at_every_point(tmp_path):
    (tmp_path / "mine.toml").write_text(EXPERIMENT)
    (mine,) = grid.read(tmp_path / "mine.toml")
    assert [(spec.slots, spec.workload.seeds) for spec in mine.specs()] == [
        (1, [0, 1]),
        (2, [0, 1]),
    ]
    assert mine.specs(seeds=5)[0].workload.seeds == [0, 1, 2, 3, 4]


WRONG = [
    ('engine = "simulator"', 'engine = "simulater"', "unknown engine of", "known: alise-curve, "),
    ("rho = 0.8", "rhoo = 0.8", "unknown key", "'rhoo'"),
    ("rho = 0.8", "rho = 3", "rho is 3; it must be", "2"),
    ("rho = 0.8", 'rho = "much"', "rho is 'much'", "a number"),
    ("slots = [1, 2]", "slots = [0]", "slots is 0", "at least 1"),
    ("slots = [1, 2]", "slots = [1.5]", "slots is 1.5", "whole number"),
    ("requests = 100", "request = 100", "unknown key workload", "request"),
    ('draw = "synthetic"', 'draw = "pol"', "draw", "synthetic"),
    ('policy = "fcfs"', 'policy = "fcfz"', "unknown policy 'fcfz'", "known: alise"),
    ('policy = "fcfs"', 'policy = "fcfs"\npredictor = "noize:1"', "unknown predictor", "noise:"),
    (
        'detail = "runs"',
        'detail = "run"',
        "detail is 'run'",
        "'runs', 'requests', 'pred",
    ),
    ("count = 2", "number = 2", "seeds are", "first and count"),
    ('title = "A trial"', "", "title is missing", ""),
]


@pytest.mark.parametrize(("text", "instead", "says", "allows"), WRONG)
def test_what_is_wrong_fails_when_it_is_read_naming_file_and_key(
    tmp_path, text, instead, says, allows
):
    path = tmp_path / "mine.toml"
    path.write_text(EXPERIMENT.replace(text, instead))
    with pytest.raises(InputError) as error:
        grid.read(path)
    sentence = str(error.value)
    assert says in sentence and allows in sentence and "\n" not in sentence
    assert "mine.toml, experiment mine" in sentence


def test_a_deployment_is_for_experiments_on_vllm():
    assert "takes no deployment" in refused("run", "tail", "--profile", "gpu-1b")
    specs = grid.experiment("vllm-gain").specs(deployment="gpu-8b")
    assert {(spec.deployment, spec.profile) for spec in specs} == {("gpu-8b", "gpu-8b")}
