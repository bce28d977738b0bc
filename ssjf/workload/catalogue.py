"""The data sets known by name: files, checksums, URLs at pinned commits, licences.

A data set is looked for in ``$SSJF_DATA`` (and up to two folders below it), then in the user's
cache, ``$XDG_CACHE_HOME/ssjf`` or ``~/.cache/ssjf``.

Checksums of the Azure files and the parquet files were computed from them; those of Mooncake
and BurstGPT are the ones several users of the files record in public. The SSJF authors publish
none for their two CSVs.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssjf.request import Requests
from ssjf.workload import upstream
from ssjf.workload.traces import load_trace


@dataclass(frozen=True)
class Source:
    """One file: its name, its checksum where one is known, and its URL where it has one."""

    name: str
    sha256: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class Form:
    """Files that hold a data set together, and the function that reads them in this order."""

    loader: Callable[..., Requests]
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Dataset:
    """A data set: ``forms[0]`` is as its authors publish it, the others are accepted too."""

    name: str
    kind: str  # "trace" (arrivals and lengths) or "lengths"
    licence: str
    note: str
    forms: tuple[Form, ...]

    @property
    def url(self) -> str | None:
        return self.forms[0].sources[0].url

    @property
    def names(self) -> list[tuple[str, ...]]:
        """The names of the files of each form."""
        return [tuple(source.name for source in form.sources) for form in self.forms]


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ssjf"


def folders() -> list[Path]:
    """Where data sets are looked for, in this order."""
    data = os.environ.get("SSJF_DATA")
    return [*([Path(data)] if data else []), cache_folder()]


def search(forms: Sequence[tuple[str, ...]]) -> tuple[int, list[Path]] | None:
    """Which of the forms (names of files, or patterns) is here first, and its files."""
    for folder in folders():
        for place, names in enumerate(forms):
            found = [_in_folder(folder, name) for name in names]
            if all(found):
                return place, [path for paths in found for path in paths]
    return None


def _in_folder(folder: Path, pattern: str) -> list[Path]:
    """The files that match, of the first folder with any: itself, or up to two below it."""
    for depth in ("", "*/", "*/*/"):
        paths = [path for path in sorted(folder.glob(depth + pattern)) if path.is_file()]
        if paths:
            return [path for path in paths if path.parent == paths[0].parent]
    return []


RAW = "https://raw.githubusercontent.com"
AZURE = f"{RAW}/Azure/AzurePublicDataset/b469a113cedca53ddc3bdea71a143dc4b7d8700c/data"
BURSTGPT = f"{RAW}/HPMLL/BurstGPT/d895a53bb7b8ec137d0d2fe203b335835a78c10a/data"
MOONCAKE = (
    f"{RAW}/kvcache-ai/Mooncake/3cca71daccf2a7afb8fe3f0295358f70e3a69fdb/FAST25-release/traces"
)
SSJF = (
    f"{RAW}/James-QiuHaoran/LLM-serving-with-proxy-models/"
    "4b866866a32626677a1841a3b92875b93b1f03ab/model-serving/prediction/final"
)


SHA256 = {
    "AzureLLMInferenceTrace_conv.csv": (
        "2f1e5b666d4e3055fdbba98598ce2ec307767b9064e03e2fa46676dbcc7d0bf8"
    ),
    "AzureLLMInferenceTrace_code.csv": (
        "54e9a6d2a4bd06ba1e060304b900abbc74cbea53de96506e60fe5bb4f2277fb6"
    ),
    "azure_llm_2023_conv.parquet": (
        "544d6897871bf2530f5a3d1788c52b45ad6b641f614b890e22d9190b5323cd73"
    ),
    "azure_llm_2023_code.parquet": (
        "9fa56fa937845c22014c025257e713a55f93273cbaf5ab2d2a68013e1aef979a"
    ),
    "ssjf_lmsys_test_predictions.parquet": (
        "1ff3504985c87385342287ba76f1e4cba272e6c1d38009ef902c14ac83213dc1"
    ),
    "synthetic_trace.jsonl": "bd070915a98fc0ed264d7cfef2ce746002eb3076a695ec31ba2674c0111ec131",
    "conversation_trace.jsonl": "b8cbb061a85206d729d91cdc2981f43c9e0d99209dce588d3af5f7934408b9df",
    "toolagent_trace.jsonl": "48a2db1a13d3bc05e6330140c64f604ba366df20d3c9e128b5c35a01c1fa5f71",
    "mooncake_synthetic.parquet": (
        "322a8b076f05c1849e9fd4ace264b8356bfbb48a7f32bfe2020dae5c96ee71e3"
    ),
    "BurstGPT_1.csv": "46fc9480ef0b748ecb2b51d512ff08c196b031782cbe6f78e28044d768e86d5a",
}


def _published(loader: Callable[..., Requests], folder_url: str, *names: str) -> Form:
    return Form(loader, tuple(Source(n, SHA256.get(n), f"{folder_url}/{n}") for n in names))


def _local(loader: Callable[..., Requests], name: str) -> Form:
    return Form(loader, (Source(name, SHA256[name]),))


_ALL = (
    Dataset(
        "azure-conv-2023",
        "trace",
        "CC BY 4.0",
        "Azure LLM inference 2023, conversation: 19,366 requests in 58 min, output up to 1,000",
        (
            _published(upstream.azure, AZURE, "AzureLLMInferenceTrace_conv.csv"),
            _local(load_trace, "azure_llm_2023_conv.parquet"),
        ),
    ),
    Dataset(
        "azure-code-2023",
        "trace",
        "CC BY 4.0",
        "Azure LLM inference 2023, code: 8,819 requests in 57 min, short outputs",
        (
            _published(upstream.azure, AZURE, "AzureLLMInferenceTrace_code.csv"),
            _local(load_trace, "azure_llm_2023_code.parquet"),
        ),
    ),
    Dataset(
        "ssjf-lmsys",
        "lengths",
        "Apache-2.0",
        "SSJF's own predictions: 85,482 LMSYS-Chat-1M answers of vicuna-13b, 2 to 511 tokens",
        (
            _published(
                upstream.ssjf_csv,
                SSJF,
                "predictions_warmup_cls_1000K.csv",
                "predictions_warmup_multi_cls_1000K.csv",
            ),
            _local(upstream.ssjf_joined, "ssjf_lmsys_test_predictions.parquet"),
        ),
    ),
    Dataset(
        "mooncake-synthetic",
        "trace",
        "Apache-2.0",
        "Mooncake: 3,993 long-context requests in 17 min, Poisson arrivals made by its authors",
        (
            _published(upstream.mooncake, MOONCAKE, "synthetic_trace.jsonl"),
            _local(load_trace, "mooncake_synthetic.parquet"),
        ),
    ),
    Dataset(
        "mooncake-conversation",
        "trace",
        "Apache-2.0",
        "Mooncake: 12,031 chat requests in 59 min, many at equal times",
        (_published(upstream.mooncake, MOONCAKE, "conversation_trace.jsonl"),),
    ),
    Dataset(
        "mooncake-toolagent",
        "trace",
        "Apache-2.0",
        "Mooncake: 23,608 tool and agent requests in 59 min, many at equal times",
        (_published(upstream.mooncake, MOONCAKE, "toolagent_trace.jsonl"),),
    ),
    Dataset(
        "burstgpt",
        "trace",
        "CC BY 4.0",
        "BurstGPT: ChatGPT and GPT-4 requests of 61 days, whole seconds, 25,443 failures left out",
        (_published(upstream.burstgpt, BURSTGPT, "BurstGPT_1.csv"),),
    ),
)

DATASETS = {dataset.name: dataset for dataset in _ALL}
