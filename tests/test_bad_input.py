"""Bad input is one sentence that names what is wrong and what is allowed, and exit code 2."""

from pathlib import Path

import pytest

from commands import HEADER, process, refused, ssjf, trace
from ssjf.errors import InputError
from ssjf.experiments import grid
from ssjf.request import Requests
from ssjf.scheduler import known_policies
from ssjf.simulator.published import serve
from ssjf.workload.catalogue import DATASETS

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def nothing_written(tmp_path, monkeypatch):
    """Whatever is refused leaves no result behind."""
    monkeypatch.setenv("SSJF_ROOT", str(ROOT))
    monkeypatch.setenv("SSJF_RESULTS", str(tmp_path / "results"))
    yield
    assert not (tmp_path / "results").exists()


@pytest.fixture
def good(tmp_path):
    return trace(tmp_path / "good.csv")


UNKNOWN = [
    (["run", "fig7"], "experiment 'fig7'", "rate-replay"),
    (["list", "models"], "kind 'models'", "policies"),
    (["check", "ssjf.nothing"], "claim 'ssjf.nothing'", "ssjf.rate.oracle.none"),
    (["notebook", "fig7"], "notebook 'fig7'", "tour"),
    (["data", "path", "lmsys"], "data set 'lmsys'", "ssjf-lmsys"),
    (["data", "get", "lmsys"], "data set 'lmsys'", "azure-conv-2023"),
    (["server"], "command 'server'", "simulate"),
    (["data", "fetch"], "command 'fetch'", "get"),
    (["model", "fetch"], "command 'fetch'", "make"),
]


@pytest.mark.parametrize(("command", "what", "known"), UNKNOWN, ids=lambda value: str(value)[:30])
def test_an_unknown_name_lists_the_known_ones(command, what, known):
    message = refused(*command)
    assert message.startswith(f"unknown {what}; known: ") and known in message


@pytest.mark.parametrize(
    ("option", "value", "known"),
    [
        ("--policies", "fcfs,lifo", known_policies()),
        ("--policies", "", known_policies()),
        ("--profile", "h100", ["illustrative-gpu", "ssjf-paper"]),
        ("--predictor", "bert", ["oracle", "noise:SIGMA"]),
        ("--predictor", "column:bert", ["(none)"]),
    ],
)
def test_simulate_lists_the_known_names(good, option, value, known):
    message = refused("simulate", good, option, value)
    assert "unknown" in message and all(name in message for name in known)


def test_a_predictor_is_checked_even_where_no_policy_asks_it(good):
    assert "unknown predictor" in refused(
        "simulate", good, "--policies", "fcfs", "--predictor", "x"
    )


NUMBERS = [
    (["--slots", 0], "slots is 0; it must be at least 1"),
    (["--slots", "many"], "'--slots': 'many' is not a valid integer"),
    (["--kv-tokens", 5], "kv_tokens is 5; it must hold at least one block of 16 tokens"),
    (["--kv-tokens", 10**30], "'--kv-tokens'"),
    (["--kv-tokens", 64], "request 1 needs 7 KV blocks"),
    (["--scale", 0], "scale is 0.0; it must be above 0"),
    (["--scale", "nan"], "scale is nan; it must be above 0"),
    (["--seed", -1], "'--seed': -1 is not in the range x>=0"),
    (["--predictor-seconds", -1], "predictor_seconds is -1.0; it must be from 0"),
    (["--predictor", "noise:-1"], "'-1' is not a number from 0 to 100"),
    (["--predictor", "noise"], "lacks its value"),
    (["--predictor", "column"], "needs a column predicted_tokens; the trace has none"),
    (["--policies", "ssjf-aged:x"], "'x' is not a finite number of at least 0"),
    (["--policies", "no_module:f"], "module 'no_module' cannot be imported"),
    (["--speed", 3], "No such option '--speed'"),
]


@pytest.mark.parametrize(("options", "why"), NUMBERS, ids=lambda value: str(value)[:30])
def test_an_option_out_of_range_is_named_with_what_is_allowed(good, options, why):
    assert why in refused("simulate", good, *options)


@pytest.mark.parametrize(("option", "value"), [("--jobs", 0), ("--seeds", -3)])
def test_run_needs_at_least_one_worker_and_one_seed(option, value):
    assert refused("run", "cv-sweep", option, value) == (
        f"{option[2:]} is {value}; it must be at least 1"
    )


def test_report_needs_at_least_one_worker():
    assert refused("report", "--jobs", 0) == "jobs must be 1 or more, not 0"


ROWS = [
    ("0,1,1\n1,1,-5\n", "row 2, column output_tokens: '-5' is not a whole number of at least 1"),
    ("0,1,1\n1,0,1\n", "row 2, column prompt_tokens: '0' is not a whole number of at least 1"),
    ("-1,1,1\n0,1,1\n", "row 1, column arrived_at: '-1' is negative; times start at 0"),
    ("0,1,1\n2,1,1\n1,1,1\n", "row 3, column arrived_at: '1' is before"),
]


@pytest.mark.parametrize(("rows", "why"), ROWS)
def test_a_bad_row_of_a_trace_is_named_with_its_file_and_column(tmp_path, rows, why):
    path = tmp_path / "bad.csv"
    path.write_text(f"{HEADER}\n{rows}")
    message = refused("simulate", path)
    assert message.startswith(str(path)) and why in message


def test_a_trace_without_a_column_names_it_and_those_found(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text("arrived_at,output_tokens\n0,1\n")
    assert refused("simulate", path) == (
        f"{path}: column 'prompt_tokens' is missing; found: arrived_at, output_tokens"
    )


@pytest.mark.parametrize("name", ["bad.csv", "bad.jsonl", "bad.parquet"])
def test_a_binary_file_and_a_missing_one_are_no_trace(tmp_path, name):
    assert refused("simulate", tmp_path / name) == f"{tmp_path / name}: there is no such file"
    (tmp_path / name).write_bytes(bytes(range(256)) * 10)
    assert refused("simulate", tmp_path / name).startswith(str(tmp_path / name))
    assert "known: .csv, .jsonl, .parquet" in refused("simulate", tmp_path / "trace.pkl")


def test_an_answer_that_cannot_fit_the_memory_says_what_would_do(tmp_path):
    path = trace(tmp_path / "t.csv", output=[10, 5_000, 10])
    message = refused("simulate", path, "--kv-tokens", 1_000)
    assert message.startswith("request 2 needs ") and "5000 output tokens" in message
    enough = message.split("give kv_tokens of at least ")[1]
    assert ssjf("simulate", path, "--kv-tokens", enough).exit_code == 0
    assert "KV blocks" in refused("simulate", path, "--kv-tokens", int(enough) - 16)


def test_a_time_beyond_the_counter_is_refused_and_the_end_is_named(tmp_path):
    path = tmp_path / "late.csv"
    path.write_text(f"{HEADER}\n0,1,1\n1e9,1,1\n")
    message = refused("simulate", path)
    assert "1e+09 s, which overflows the time counter; at most 2305843 s" in message
    assert ssjf("simulate", path, "--scale", 1e6).exit_code == 0


def profile_file(tmp_path, text):
    path = tmp_path / "own.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("step_seconds = 0.1\nspeed = 3", "unknown key 'speed'; known: name, per_context_token"),
        ("step_seconds = ", "is not TOML"),
        ("name = 'own'", "step_seconds is missing"),
        ("step_seconds = 0", "step_seconds is 0; it must be above 0"),
        ("step_seconds = nan", "step_seconds is nan; it must be"),
        ("step_seconds = 0.1\nper_context_token_seconds = -1", "it must be at least 0"),
        ("step_seconds = true", "step_seconds is True; it must be a number"),
        ('step_seconds = 1\nper_sequence_seconds = "x"', "it must be a number"),
        ("step_seconds = 1\nstart_up_steps = 2.5", "it must be a whole number"),
        ("step_seconds = 1\nname = 3", "name is 3; it must be text"),
        ("step_seconds = 1e9", "it must be below 10000"),
        ("step_seconds = 9999\nper_context_token_seconds = 9999", "coefficients are too large"),
    ],
)
def test_a_profile_that_cannot_be_used(good, tmp_path, text, why):
    assert why in refused("simulate", good, "--profile", profile_file(tmp_path, text))


def test_a_profile_that_is_not_there(good, tmp_path):
    path = tmp_path / "no.toml"
    assert refused("simulate", good, "--profile", path) == f"profile file {path} does not exist"
    (tmp_path / "folder.toml").mkdir()
    assert refused("simulate", good, "--profile", tmp_path / "folder.toml") == (
        f"profile file {tmp_path / 'folder.toml'} cannot be read (Is a directory)"
    )


@pytest.mark.parametrize(
    ("mode", "name", "slots", "why"),
    [
        ("static", "fcfs", 2, "unknown batching mode 'static'; known: continuous, dynamic, none"),
        ("none", "hrrn", 2, "unknown policy of the published protocol 'hrrn'; known: fcfs"),
        ("dynamic", "fcfs", 0, "slots is 0; it must be at least 1"),
        ("none", "ssjf", 1, "policy ssjf needs predicted lengths"),
    ],
)
def test_the_published_protocol_refuses_what_it_does_not_have(mode, name, slots, why):
    with pytest.raises(InputError, match=why):
        serve(Requests([0.0], [1], [1]), name, mode, slots)


def test_data_that_is_not_here_says_where_it_was_looked_for_and_where_it_is(tmp_path, monkeypatch):
    """An experiment whose draw is not committed needs its data set."""
    monkeypatch.setenv("SSJF_WORKLOADS", str(tmp_path / "workloads"))
    monkeypatch.setenv("SSJF_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    message = refused("run", "rate-replay")
    for part in (
        "data set ssjf-lmsys is not here", "predictions_warmup_cls_1000K.csv", tmp_path / "data",
        tmp_path / "cache" / "ssjf", "ssjf data get ssjf-lmsys", "https://raw.githubusercontent.com",
        "SSJF_DATA",
    ):  # fmt: skip
        assert str(part) in message
    assert not (tmp_path / "workloads").exists()


def test_more_seeds_than_are_committed_need_the_data_too(tmp_path, monkeypatch):
    monkeypatch.setenv("SSJF_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    many = len(grid.experiment("cv-sweep").specs()[0].workload.seeds) + 1
    assert "data set ssjf-lmsys is not here" in refused("run", "cv-sweep", "--seeds", many)


def test_every_data_set_that_is_not_here_is_refused_alike(tmp_path, monkeypatch):
    monkeypatch.setenv("SSJF_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in DATASETS:
        assert refused("data", "path", name).startswith(f"data set {name} is not here: no ")


def test_claims_cannot_be_checked_outside_the_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("SSJF_ROOT", str(tmp_path))
    assert refused("check") == f"no claims in {tmp_path / 'papers'}: run ssjf in its repository"


def test_where_nothing_can_be_written(tmp_path):
    """In a process of its own: the exit code, and a path below a regular file."""
    (tmp_path / "file").write_text("")
    env = {"SSJF_RAW": str(ROOT / "results" / "raw")}
    done = process("notebook", "tour", "--out", tmp_path / "file" / "out", cwd=ROOT, env=env)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"ssjf: {tmp_path}/file/out") and "Not a directory" in done.stderr


def test_an_unreadable_command_line_is_one_sentence():
    for arguments in (["--fast"], ["run", "cv-sweep", "--jobs", "two"]):
        done = process(*arguments)
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.startswith("ssjf: ") and done.stderr.count("\n") == 1
