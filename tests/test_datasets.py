"""Named data sets: upstream formats, where files are looked for, checksums and downloads.

What needs the real files is skipped where they are not: see ``real_data``.
"""

import hashlib
import re

import numpy as np
import pytest

from shared_data import shared_data
from ssjf.errors import InputError
from ssjf.workload import catalogue, datasets
from ssjf.workload import traces as published
from ssjf.workload.catalogue import DATASETS, TEXTS, Dataset, Form, Source
from ssjf.workload.traces import load_trace

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens\r
2023-11-16 23:59:59.9999999,374,44\r
2023-11-17 00:00:00.0000001,396,0\r
2023-11-17 00:00:04.3145789,879,55"""
MOONCAKE = """{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]}
{"timestamp": 27482, "input_length": 64, "output_length": 26, "hash_ids": [46]}
{"timestamp": 30535, "input_length": 6472, "output_length": 26, "hash_ids": []}
"""
BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
45,ChatGPT,1087,230,1317,Conversation log
5,ChatGPT,472,18,490,Conversation log
118,GPT-4,417,0,417,API log
45,GPT-4,10,20,30,API log
"""
CLS3 = """,output_token_length,predicted_length,latency,model
0,40,0,0.02,vicuna-13b
1,499,1,0.01,vicuna-13b
2,511,2,0.01,vicuna-13b
"""


def write(path, text):
    path.write_bytes(text.encode())
    return path


@pytest.fixture
def real_data(monkeypatch):
    folder = shared_data()
    monkeypatch.setenv("SSJF_DATA", str(folder))
    return folder


@pytest.fixture
def tiny(served, monkeypatch):
    """A data set of one Azure file, published by the local server."""
    folder, url = served
    data = write(folder / "tiny.csv", AZURE).read_bytes()
    return register(monkeypatch, f"{url}/tiny.csv", hashlib.sha256(data).hexdigest())


def register(monkeypatch, url, sha256):
    source = Source("tiny.csv", sha256, url)
    dataset = Dataset("tiny", "trace", "CC0", "", url, (Form((source,), published.azure),))
    monkeypatch.setitem(DATASETS, "tiny", dataset)
    return dataset


# Upstream formats


def test_azure_times_are_exact_across_midnight_and_failures_are_left_out(tmp_path):
    requests = published.azure(write(tmp_path / "azure.csv", AZURE))
    assert requests.arrived_at.tolist() == [0.0, 4.314579]
    assert requests.prompt_tokens.tolist() == [374, 879]
    assert requests.output_tokens.tolist() == [44, 55]


def test_mooncake_milliseconds_become_seconds_and_ties_stay(tmp_path):
    requests = published.mooncake(write(tmp_path / "trace.jsonl", MOONCAKE))
    assert requests.arrived_at.tolist() == [0.0, 0.0, 3.053]
    assert requests.prompt_tokens.tolist() == [6955, 64, 6472]


def test_burstgpt_is_sorted_stably_without_its_failures(tmp_path):
    requests = published.burstgpt(write(tmp_path / "burst.csv", BURSTGPT))
    assert requests.arrived_at.tolist() == [0.0, 40.0, 40.0]
    assert requests.output_tokens.tolist() == [18, 230, 20]


def test_ssjf_predictions_keep_their_order(tmp_path):
    cls3 = write(tmp_path / "cls3.csv", CLS3)
    cls5 = write(tmp_path / "cls5.csv", CLS3.replace("511,2", "511,4"))
    requests = published.ssjf_csv(cls3, cls5)
    assert requests.output_tokens.tolist() == [40, 499, 511]
    assert requests.predictions["cls3"].tolist() == [0, 1, 2]
    assert requests.predictions["cls5"].tolist() == [0, 1, 4]
    assert not requests.arrived_at.any() and set(requests.prompt_tokens) == {1}


@pytest.mark.parametrize(
    ("loader", "name", "text", "message"),
    [
        (
            published.azure,
            "a.csv",
            AZURE.replace("2023-11-17 00:00:04", "soon"),
            "row 3, column TIM",
        ),
        (published.azure, "a.csv", AZURE.replace("-17", "-15"), "row 2, column TIMESTAMP"),
        (published.azure, "a.csv", AZURE.replace("879", "-1"), "row 3, column ContextTokens: '-1'"),
        (published.azure, "a.csv", AZURE.replace("44", "0").replace("55", "0"), "no row has both"),
        (published.azure, "a.csv", BURSTGPT, "column 'TIMESTAMP' is missing; found: Timestamp, M"),
        (
            published.mooncake,
            "m.jsonl",
            MOONCAKE.replace("30535", "1"),
            "row 3, column timestamp: 1",
        ),
        (published.burstgpt, "b.csv", BURSTGPT.replace("417,0", "417,?"), "row 3, column Response"),
    ],
)
def test_a_broken_upstream_file_is_named_by_row_and_its_own_column(
    tmp_path, loader, name, text, message
):
    path = write(tmp_path / name, text)
    with pytest.raises(InputError, match=re.escape(str(path))) as error:
        loader(path)
    assert message in str(error.value)


def test_ssjf_predictions_of_other_requests_are_refused(tmp_path):
    cls3 = write(tmp_path / "cls3.csv", CLS3)
    cls5 = write(tmp_path / "cls5.csv", CLS3.replace("499", "498"))
    with pytest.raises(InputError, match=r"cls3\.csv and .*cls5\.csv must list the same requests"):
        published.ssjf_csv(cls3, cls5)


# Where files are looked for


def test_an_unknown_data_set_lists_the_known_ones():
    for function in (catalogue.find, datasets.load, datasets.get):
        with pytest.raises(InputError, match="unknown data set 'azure'; known: alpaca-ev") as error:
            function("azure")
        assert all(name in str(error.value) for name in (*DATASETS, *TEXTS))


def test_texts_are_no_requests():
    with pytest.raises(InputError, match="moss holds texts, no requests; read it with load_texts"):
        datasets.load("moss")


@pytest.mark.parametrize("name", DATASETS)
def test_a_data_set_that_is_not_here_says_where_it_is_looked_for(name, home, tmp_path, monkeypatch):
    monkeypatch.setenv("SSJF_DATA", str(tmp_path / "data"))
    with pytest.raises(InputError) as error:
        catalogue.find(name)
    source = DATASETS[name].forms[0].sources[0]
    for part in (str(home), str(tmp_path / "data"), source.name, source.url, f"data get {name}"):
        assert part in str(error.value)


@pytest.mark.parametrize("below", [".", "a", "a/b"])
def test_ssjf_data_is_searched_two_folders_deep_before_the_cache(
    below, tiny, home, tmp_path, monkeypatch
):
    [cached] = datasets.get("tiny")
    assert catalogue.find("tiny") == [cached]
    folder = tmp_path / "data" / below
    folder.mkdir(parents=True)
    path = write(folder / "tiny.csv", AZURE)
    monkeypatch.setenv("SSJF_DATA", str(tmp_path / "data"))
    assert catalogue.find("tiny") == [path]


def test_a_data_set_with_a_file_missing_is_not_here(home):
    home.mkdir(parents=True)
    write(home / "predictions_warmup_cls_1000K.csv", CLS3)
    with pytest.raises(InputError, match="is not here"):
        catalogue.find("ssjf-lmsys")
    write(home / "predictions_warmup_multi_cls_1000K.csv", CLS3)
    assert len(datasets.load("ssjf-lmsys")) == 3


def test_describe_all_lists_every_data_set_with_or_without_its_files(home, tiny):
    paths = {record["name"]: record["path"] for record in datasets.describe_all()}
    assert set(paths) == {*DATASETS, *TEXTS} and set(paths.values()) == {None}
    [path] = datasets.get("tiny")
    assert next(r["path"] for r in datasets.describe_all() if r["name"] == "tiny") == path


def test_a_file_changed_after_it_was_checked_is_refused(tiny, home):
    [path] = datasets.get("tiny")
    assert len(datasets.load("tiny")) == 2
    path.write_text(AZURE.replace("374", "375"))
    with pytest.raises(InputError, match=r"tiny\.csv .* its sha256 must be .*; delete it and run"):
        datasets.load("tiny")
    datasets.get("tiny", force=True)
    assert len(datasets.load("tiny")) == 2


# Downloads


def test_get_downloads_once_unless_forced(tiny, home, served):
    [path] = datasets.get("tiny")
    assert path == home / "tiny.csv" and path.read_bytes() == AZURE.encode()
    (served[0] / "tiny.csv").unlink()
    assert datasets.get("tiny") == [path]
    with pytest.raises(InputError, match="cannot download"):
        datasets.get("tiny", force=True)
    assert path.read_bytes() == AZURE.encode()


def test_a_download_with_another_checksum_leaves_nothing(tiny, home, served):
    write(served[0] / "tiny.csv", "not what it was")
    with pytest.raises(InputError, match=r"tiny\.csv gave a file with sha256 .* nothing was kept"):
        datasets.get("tiny")
    assert [*home.iterdir()] == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/tiny.csv"])
def test_an_unreachable_file_says_where_to_put_it_by_hand(url, home, monkeypatch):
    register(monkeypatch, url, None)
    with pytest.raises(InputError) as error:
        datasets.get("tiny")
    for part in (url, str(home), "as tiny.csv"):
        assert part in str(error.value)


def test_a_cache_that_cannot_be_written_is_named(tiny, home):
    write(home.parent, "a file where the folder should be")
    with pytest.raises(InputError, match=r"cannot write .*tiny\.csv"):
        datasets.get("tiny")


# The catalogue and the real files


def test_every_data_set_has_pinned_urls_and_well_formed_checksums():
    for dataset in DATASETS.values():
        assert dataset.kind in ("trace", "lengths") and dataset.licence and dataset.note
        for source in dataset.forms[0].sources:
            assert re.match(r"https://raw\.githubusercontent\.com/.+/[0-9a-f]{40}/", source.url)
            assert source.url.endswith("/" + source.name)
        for source in (source for form in dataset.forms for source in form.sources):
            assert source.sha256 is None or re.fullmatch("[0-9a-f]{64}", source.sha256)


REAL = [
    ("azure-conv-2023", 19_366, 4_088_665),
    ("azure-code-2023", 8_819, 245_896),
    ("ssjf-lmsys", 85_482, 15_110_268),
    ("mooncake-synthetic", 3_993, 595_432),
]


@pytest.mark.parametrize(("name", "rows", "output_tokens"), REAL)
def test_the_real_files_have_their_published_size(name, rows, output_tokens, real_data):
    requests = datasets.load(name)
    assert len(requests) == rows and requests.output_tokens.sum() == output_tokens
    assert requests.arrived_at[0] == 0 and np.all(np.diff(requests.arrived_at) >= 0)


@pytest.mark.parametrize("kind", ["conv", "code"])
def test_azure_as_published_and_as_parquet_are_the_same_requests(kind, real_data):
    published = datasets.load(f"azure-{kind}-2023")
    parquet = load_trace(real_data / "traces" / f"azure_llm_2023_{kind}.parquet")
    assert published.arrived_at == pytest.approx(parquet.arrived_at, abs=1e-9)
    assert np.array_equal(published.prompt_tokens, parquet.prompt_tokens)
    assert np.array_equal(published.output_tokens, parquet.output_tokens)


def test_ssjf_classes_have_their_published_accuracy(real_data):
    requests = datasets.load("ssjf-lmsys")
    for name, limits, accuracy in [("cls3", [141, 503], 0.807), ("cls5", [42, 141, 294, 503], 0.6)]:
        truth = np.searchsorted(limits, requests.output_tokens, side="right")
        assert np.mean(truth == requests.predictions[name]) == pytest.approx(accuracy, abs=1e-3)
