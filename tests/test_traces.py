"""Trace files: what a good one gives, and the sentence for each way it can be bad."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from ssjf.errors import InputError
from ssjf.workload.traces import load_trace

HEADER = "arrived_at,prompt_tokens,output_tokens"
GOOD = {
    "arrived_at": [0.0, 0.1, 2.5],
    "prompt_tokens": [10, 1, 7],
    "output_tokens": [3, 200, 1],
    "predicted_tokens": [2.5, 180.0, 1.0],
    "user": ["a", "b", "c"],
}


def write(path, columns):
    """The columns as a file of the format its suffix names."""
    rows = list(zip(*columns.values(), strict=True))
    if path.suffix == ".parquet":
        parquet.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        path.write_text(
            "".join(json.dumps(dict(zip(columns, r, strict=True))) + "\n" for r in rows)
        )
    else:
        path.write_text("\n".join([",".join(columns), *(",".join(map(str, r)) for r in rows)]))
    return path


def sentence(path, **options):
    """The one sentence that the file is refused with; it names the file."""
    with pytest.raises(InputError) as error:
        load_trace(path, **options)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    return str(error.value).replace(str(path), path.name)


@pytest.fixture(params=[".csv", ".jsonl", ".parquet"])
def path(request, tmp_path):
    return tmp_path / f"trace{request.param}"


def test_every_format_gives_the_same_requests(path):
    requests = load_trace(write(path, GOOD))
    assert requests.arrived_at.tolist() == GOOD["arrived_at"]
    assert requests.prompt_tokens.tolist() == GOOD["prompt_tokens"]
    assert requests.output_tokens.tolist() == GOOD["output_tokens"]
    assert requests.prompt_tokens.dtype == np.int64
    assert {k: v.tolist() for k, v in requests.predictions.items()} == {
        "predicted_tokens": GOOD["predicted_tokens"]
    }


@given(gaps=st.lists(st.floats(1e-3, 1e5), min_size=1, max_size=20))
def test_times_survive_a_csv_exactly(tmp_path_factory, gaps):
    times = np.cumsum(gaps).tolist()
    columns = {
        "arrived_at": times,
        "prompt_tokens": [1] * len(gaps),
        "output_tokens": range(1, 1 + len(gaps)),
    }
    path = write(tmp_path_factory.mktemp("t") / "trace.csv", columns)
    assert load_trace(path).arrived_at.tolist() == times


def test_a_trace_needs_no_predictions(path):
    columns = {name: GOOD[name] for name in HEADER.split(",")}
    assert load_trace(write(path, columns)).predictions == {}


def test_another_column_of_predictions_can_be_named(path):
    requests = load_trace(write(path, {**GOOD, "bert": [3, 1, 2]}), predicted="bert")
    assert requests.predictions["predicted_tokens"].tolist() == [3, 1, 2]
    oracle = load_trace(path, predicted="output_tokens")
    assert oracle.predictions["predicted_tokens"].tolist() == GOOD["output_tokens"]
    assert "column 'gpt' is missing; found: arrived_at, " in sentence(path, predicted="gpt")


def test_a_byte_order_mark_windows_line_ends_and_blank_lines_do_no_harm(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_bytes(b"\xef\xbb\xbf" + HEADER.encode() + b"\r\n0,1,2\r\n\r\n1,3,4\r\n")
    assert load_trace(path).output_tokens.tolist() == [2, 4]


@pytest.mark.parametrize("column", HEADER.split(","))
def test_a_missing_column_is_named_with_those_found(path, column):
    columns = {name: values for name, values in GOOD.items() if name != column}
    message = f"{path.name}: column '{column}' is missing; found: {', '.join(columns)}"
    assert sentence(write(path, columns)) == message


BAD_VALUES = [
    ("prompt_tokens", 0, "0 is not a whole number of at least 1"),
    ("output_tokens", 0, "0 is not a whole number of at least 1"),
    ("output_tokens", -4, "-4 is not a whole number of at least 1"),
    ("output_tokens", 2**31, "2147483648 is not a whole number"),
    ("arrived_at", -1.0, "-1.0 is negative; times start at 0"),
    ("arrived_at", -0.5, "-0.5 is negative; times start at 0"),
    ("predicted_tokens", float("nan"), "nan is not a finite number"),
    ("arrived_at", float("inf"), "inf is not a finite number"),
    ("arrived_at", float("nan"), "nan is not a finite number"),
]


@pytest.mark.parametrize(("column", "value", "why"), BAD_VALUES)
def test_a_bad_value_is_named_by_row_and_column(path, column, value, why):
    values = [*GOOD[column][:1], value, *GOOD[column][2:]]
    message = sentence(write(path, {**GOOD, column: values}))
    assert message.replace("'", "").startswith(f"{path.name}, row 2, column {column}: {why}")


@pytest.mark.parametrize("value", ["", "many", "1.5", "nan", "1e400", "[1]"])
def test_a_csv_cell_that_is_no_count_is_named(tmp_path, value):
    path = tmp_path / "trace.csv"
    path.write_text(f"{HEADER}\n0,1,1\n1,{value},1\n")
    assert sentence(path).startswith(f"trace.csv, row 2, column prompt_tokens: '{value}' is not a ")


@pytest.mark.parametrize("value", [None, True, [1], {}, "x", 1.5, 10**400])
def test_a_json_value_that_is_no_count_is_named(tmp_path, value):
    path = write(tmp_path / "trace.jsonl", {**GOOD, "output_tokens": [1, 1, value]})
    assert "row 3, column output_tokens: " in sentence(path)


def test_a_json_row_without_a_column_is_named(tmp_path):
    path = write(tmp_path / "trace.jsonl", GOOD)
    path.write_text(path.read_text() + '{"arrived_at": 9, "prompt_tokens": 1}\n')
    assert "row 4, column output_tokens: None is not a finite number" in sentence(path)


def test_unsorted_times_name_the_first_row_out_of_order(path):
    message = sentence(write(path, {**GOOD, "arrived_at": [1.0, 2.0, 1.5]}))
    assert message.replace("'", "") == (
        f"{path.name}, row 3, column arrived_at: "
        "1.5 is before the time of the row above; times must be sorted"
    )


def test_equal_times_keep_the_order_of_the_rows(path):
    write(
        path, {"arrived_at": [1.0, 1.0, 1.5], "prompt_tokens": [3, 2, 1], "output_tokens": [1] * 3}
    )
    requests = load_trace(path)
    assert requests.arrived_at.tolist() == [1.0, 1.0, 1.5]
    assert requests.prompt_tokens.tolist() == [3, 2, 1]


def test_a_table_without_rows_is_refused(path):
    columns = {name: pa.array([], pa.float64()) for name in GOOD}
    why = "the file is empty" if path.suffix == ".jsonl" else "the table has no rows"
    assert sentence(write(path, columns)).startswith(f"{path.name}: {why}")


def test_a_missing_file_and_a_folder_are_no_trace(path, tmp_path):
    assert sentence(path) == f"{path.name}: there is no such file"
    path.mkdir()
    assert sentence(path) == f"{path.name}: there is no such file"


@pytest.mark.parametrize("name", ["trace.txt", "trace.pkl", "trace"])
def test_an_unknown_suffix_lists_the_known_ones(tmp_path, name):
    (tmp_path / name).write_text(HEADER)
    assert "known: .csv, .jsonl, .parquet" in sentence(tmp_path / name)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"PK\x03\x04\x00\x00", "is not text (it holds zero bytes)"),
        (HEADER.encode("utf-16"), "is not text (it holds zero bytes)"),
        (b"\x89PNG\xff\xfe", "is not text in UTF-8"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_binary_file_is_no_table_of_text(tmp_path, suffix, data, why):
    path = tmp_path / f"trace{suffix}"
    path.write_bytes(data)
    assert why in sentence(path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("\n", "column 'arrived_at' is missing; found: none"),
        (f"{HEADER}\n0,1,1\n\n1,1\n", "row 2: 2 fields for 3 columns"),
        (f"{HEADER}\n0,1,1,9\n", "row 1: 4 fields for 3 columns"),
        (f"{HEADER},output_tokens\n0,1,1,2\n", "column 'output_tokens' is there twice"),
        (f'{HEADER}\n0,1,"1\n', "line 2: not valid CSV"),
    ],
)
def test_a_malformed_csv_is_refused(tmp_path, text, why):
    path = tmp_path / "trace.csv"
    path.write_text(text)
    assert why in sentence(path)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"arrived_at": 1,', "line 4: not valid JSON"),
        ("[1, 2, 3]", "line 4: not a JSON object"),
        ("[" * 100_000, "line 4: not valid JSON"),
    ],
)
def test_a_malformed_json_line_is_named(tmp_path, line, why):
    path = write(tmp_path / "trace.jsonl", GOOD)
    path.write_text(path.read_text() + line)
    assert why in sentence(path)


@pytest.mark.parametrize("kept", [3, 100, -10])
def test_a_cut_parquet_file_is_refused(tmp_path, kept):
    path = write(tmp_path / "trace.parquet", GOOD)
    path.write_bytes(path.read_bytes()[:kept])
    assert "trace.parquet: not a readable parquet file (" in sentence(path)


def test_parquet_dates_and_nulls_are_no_numbers(tmp_path):
    dates = np.array(["2023-11-16"] * 3, "M8[ms]")
    path = write(tmp_path / "trace.parquet", {**GOOD, "arrived_at": dates})
    assert "row 1, column arrived_at" in sentence(path)
    write(path, {**GOOD, "output_tokens": [1, None, 1]})
    assert "row 2, column output_tokens: None is not a finite number" in sentence(path)
